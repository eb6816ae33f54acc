"""The rows of event sources that some partitions take: each source is read once for all of them.

What a partition takes of a source is what arrived in its interval, less what a newer partition has
taken late, with the late rows that it takes itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import pyarrow as pa
from msgspec import UNSET, UnsetType

from include.config.use_case_sources import Source
from include.errors import EvergreenError
from include.ingestion import late
from include.ingestion.arrival import Arrivals, readable_partitions
from include.ingestion.columns import FILE, LATE
from include.ingestion.file_reader import FileReader
from include.ingestion.files import has_partition_files
from include.ingestion.late import LateRows
from include.ingestion.raw_rows import checksum, join_rows, partition_digest
from include.ingestion.recorded_intake import RecordedIntake, is_newest
from include.ingestion.source_digests import source_digest
from include.ingestion.sources import read_source, stamps_of
from include.pipeline.ingest_outputs import IngestedSource
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.point_in_time.partitions import Period

log = logging.getLogger(__name__)


class EventRows:
    """The event sources of some partitions, each read when it is first asked for.

    What is read is kept for the partitions that come after, as long as they can need it.
    """

    def __init__(
        self, contexts: Sequence[StageContext], reader: FileReader, record: RecordedIntake
    ) -> None:
        self._contexts, self._reader, self._record = contexts, reader, record
        self._whole_reads: dict[str, Arrivals | EvergreenError] = {}
        self._file_reads: dict[tuple[str, str], Arrivals] = {}
        self._stamps: dict[tuple[str, str], dict[str, str]] = {}
        self._late: dict[str, LateRows] = {}
        self._recorded: dict[str, dict[str, IngestedSource]] = {}

    def take(
        self, name: str, source: Source, context: StageContext, before: IngestedSource | None
    ) -> tuple[IngestedSource, pa.Table | None]:
        """Return what a partition takes of a source that it expects, and its rows.

        No rows: those on record (`before`) stand, although others have come since.

        Raises:
            SourceError: the source cannot be read, or has late rows and takes none.
        """
        reads = self._reads(name, source, context)
        late_rows, opened = self._late_rows(name, source, context, reads)
        rows = join_rows(
            [read.between(context.period.arrival_start, context.as_of) for read in reads]
        )
        # What one read gives is asked for its checksum together with the other partitions' rows.
        offered = (
            reads[0].checksum(context.period.arrival_start, context.as_of)
            if len(reads) == 1
            else checksum(rows)
        )
        shas = {file: sha for read in reads for file, sha in read.delivery.digests.items()}
        digest = source_digest(shas)
        recorded = before if before is not None and before.is_expected else None
        if recorded is not None and self._stands(
            name, source, context, recorded, rows, late_rows, offered
        ):
            taken = recorded
            # A redriven partition's digest is over the redriven rows too.
            if not recorded.redriven:
                taken = msgspec.structs.replace(taken, source_digest=digest)
            if not len(late_rows.of(context.key)):
                taken = msgspec.structs.replace(taken, seen=offered)
            return self._with_waiting(name, context, taken, late_rows), None
        equal = recorded is not None and recorded.checksum == offered
        own = (
            rows if equal else late.without_taken_rows(name, context, self._recorded_of(name), rows)
        )
        # Rows are only taken away: as many in as many columns are the same ones.
        is_whole = (len(own), own.num_columns) == (len(rows), rows.num_columns)
        added, corrections = pa.table({}), 0
        compared: dict[str, str] | UnsetType = UNSET
        if recorded is not None:
            if recorded.late:
                added, corrections = late.read_taken_rows(name, context), recorded.corrections or 0
        elif len(refused := late_rows.before(context.key).timed()) and not source.takes_late:
            raise late.late_rows_error(name, refused, context)
        elif is_newest(context):
            # With these rows taken nothing of them is left: the next night need not compare them
            # again.
            compared = late_rows.compared or UNSET
            coming, late_rows = late_rows.before(context.key), LateRows()
            added, corrections = coming.as_taken_by(context), coming.corrections
        whole = join_rows([own, added])
        files = _files_of(whole)
        taken = IngestedSource(
            checksum=offered if is_whole else checksum(own),
            corrections=corrections,
            compared=compared,
            rows=len(whole),
            digest=partition_digest(whole, source),
            source_digest=digest,
            files=files,
            columns=[header for read in opened for header in read.headers(files or sorted(shas))],
            late=len(added),
            early=sum(read.early for read in reads if _owner(read) == context.key),
            arrival="assumed" if source.assumed_lag is not None else "recorded",
            marks=self._marks(name, source, opened, late_rows),
        )
        return self._with_waiting(name, context, taken, late_rows), whole

    def _stands(
        self,
        name: str,
        source: Source,
        context: StageContext,
        recorded: IngestedSource,
        rows: pa.Table,
        late_rows: LateRows,
        offered: str,
    ) -> bool:
        """Tell whether a partition's record stands although its source offers other rows.

        All recorded rows are there, and what came since is left to the newest partition. `offered`
        is the checksum of the rows.
        """
        if not source.takes_late or source.simulator is not None or context.options.get("restate"):
            return False
        if recorded.checksum == offered or not is_stored(context, name, recorded):
            return False
        return late.is_record_complete(
            name, context, self._recorded_of(name), rows, late_rows.of(context.key)
        )

    def _with_waiting(
        self, name: str, context: StageContext, taken: IngestedSource, late_rows: LateRows
    ) -> IngestedSource:
        """Return what a partition takes with the late rows that this run leaves."""
        left = late_rows.until(context.key)
        if not len(left) or not context.use_case.sources[name].takes_late:
            return msgspec.structs.replace(taken, waiting=UNSET)
        taken = msgspec.structs.replace(taken, waiting=left.waiting())
        log.warning(
            "%s %s: %s", context.use_case.name, context.key, late.describe_late_rows(name, taken)
        )
        return taken

    def _marks(
        self, name: str, source: Source, opened: Sequence[Arrivals], left: LateRows
    ) -> dict[str, str] | UnsetType:
        """Return size and time of a partition's own files, so that no later run opens them again.

        A file of which rows are left is not among them: the run that takes them has to open it.
        """
        if not has_partition_files(source):
            return UNSET
        stamps: dict[str, str] = {}
        for read in opened:
            stamps |= self._stamps[name, _owner(read)]
        return {file: stamp for file, stamp in stamps.items() if file not in left.files}

    def _recorded_of(self, name: str) -> dict[str, IngestedSource]:
        """Return what was on record of a source before these partitions."""
        if name not in self._recorded:
            self._recorded[name] = self._record.expected(name, self._contexts[0])
        return self._recorded[name]

    def _reads(self, name: str, source: Source, context: StageContext) -> list[Arrivals]:
        """Return what was read of a source for a partition.

        That is one read of each file partition that it reaches, or one for all partitions.
        """
        if has_partition_files(source):
            keys = readable_partitions(context.use_case, name, context.key)
            # A range goes through its files once, and holds those that one partition reaches.
            for place in [
                place for place in self._file_reads if place[0] == name and place[1] not in keys
            ]:
                del self._file_reads[place]
            return [self._read_files(name, context, key) for key in keys]
        read = self._whole_reads.get(name)
        if read is None:
            try:
                read = self._read_whole(name, source, context)
            except EvergreenError as error:
                read = error  # the other partitions are told the same, without another try
            self._whole_reads[name] = read
        if isinstance(read, EvergreenError):
            raise read
        return [read]

    def _read_whole(self, name: str, source: Source, context: StageContext) -> Arrivals:
        """Read a source for all these partitions, and as far back as late rows are looked for."""
        recorded = self._recorded_of(name)
        due = sorted(
            (
                other.period
                for other in self._contexts
                if partitions.within(source.history, other.key)
            ),
            key=_by_key,
        )
        closed = [
            partitions.period(context.use_case, key)
            for key in sorted(recorded)
            if key <= due[-1].key
        ]
        near = [period for period in closed if _is_looked_at(source, due[0], period)]
        periods = sorted({*due, *(near if source.sql is not None else ())}, key=_by_key)
        read = Arrivals(
            name,
            context.use_case,
            read_source(name, context.use_case, context.settings, self._reader, periods),
        )
        read.load_checksums(due)
        if source.simulator is None:  # what follows from a rule is never late
            # Rows of a database without a time belong to the first partition, however far back that
            # is.
            near = sorted({*near, *(closed[:1] if source.sql is not None else ())}, key=_by_key)
            self._late[name] = late.find_late_rows(name, context, recorded, [read], near)
        return read

    def _read_files(self, name: str, context: StageContext, key: str) -> Arrivals:
        """Return the arrivals of a partition's own files."""
        if (name, key) not in self._file_reads:
            use_case, settings = context.use_case, context.settings
            owner = partitions.period(use_case, key)
            # Before they are read: what is written meanwhile then differs from the mark, and is
            # opened again.
            self._stamps[name, key] = stamps_of(name, use_case, settings, key, self._reader)
            delivery = read_source(name, use_case, settings, self._reader, [owner])
            self._file_reads[name, key] = Arrivals(name, use_case, delivery, owner)
        return self._file_reads[name, key]

    def _late_rows(
        self, name: str, source: Source, context: StageContext, reads: Sequence[Arrivals]
    ) -> tuple[LateRows, Sequence[Arrivals]]:
        """Return the late rows that a partition can see, and all that was opened to find them."""
        if not has_partition_files(source):
            return self._late.get(name, LateRows()), reads
        recorded, opened = self._recorded_of(name), list(reads)
        if is_newest(context):
            opened += self._changed_files(name, source, context, reads)
        oldest = min(_owner(read) for read in opened)
        closed = [
            partitions.period(context.use_case, key)
            for key in sorted(recorded)
            if oldest <= key <= context.key
        ]
        return late.find_late_rows(name, context, recorded, opened, closed), opened

    def _changed_files(
        self, name: str, source: Source, context: StageContext, reads: Sequence[Arrivals]
    ) -> list[Arrivals]:
        """Open the files of earlier partitions whose size or time is not on record."""
        use_case = context.use_case
        # The newest mark of a file counts: one that looks as it did before is another file again.
        marks = {
            file: stamp
            for _, recorded in sorted(self._recorded_of(name).items())
            for file, stamp in (recorded.marks or {}).items()
        }
        opened = {_owner(read) for read in reads}
        first = max((source.history or use_case.history).first, use_case.history.first)
        changed = []
        for key in partitions.between(
            use_case, partitions.key_within(use_case, first), context.key
        ):
            if key in opened or not _is_looked_at(
                source, context.period, partitions.period(use_case, key)
            ):
                continue
            stamps = stamps_of(name, use_case, context.settings, key, self._reader)
            if not stamps.items() <= marks.items():
                changed.append(self._read_files(name, context, key))
        return changed


def is_stored(context: StageContext, name: str, recorded: IngestedSource) -> bool:
    """Tell whether the lake holds what the record says.

    Cheaply: that there are rows where there should be.
    """
    return not recorded.rows or recorded.stored_under(context.key) in context.lake.keys(
        context.table(f"raw/{name}")
    )


def _files_of(rows: pa.Table) -> list[str]:
    """Return the files that rows stand in, sorted; those of late rows without their mark."""
    names = rows.column(FILE).unique().to_pylist() if len(rows) else []
    return sorted(
        {
            name.removeprefix(LATE).partition("/")[2] if name.startswith(LATE) else name
            for name in names
        }
    )


def _owner(read: Arrivals) -> str:
    """Return the key of the partition whose own files were read; empty where there is none."""
    return read.owner.key if read.owner is not None else ""


def _by_key(period: Period) -> str:
    return period.key


def _is_looked_at(source: Source, period: Period, closed: Period) -> bool:
    """Tell whether late rows of a closed partition are looked for."""
    return source.looks_back is None or closed.as_of > period.arrival_start - source.looks_back
