"""Stage `ingest_data`: what arrived of every source in a partition's interval goes into the lake.

The interval is `[arrival_start, as_of)`; rows go as received into `raw/<source>`.
Rows in = rows out: `arrival` says to which partition each row belongs. The first successful ingest
is the record: equal rows change nothing. Rows that come later (`late`) are left to the newest
partition and named, or refused where the source says `late: refuse`; rows that are gone are
refused. With a reason (the option `restate`) a partition takes what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import msgspec
import pyarrow as pa

from include.config.use_case_sources import Source
from include.errors import Busy, EvergreenError, RestatementRefused
from include.ingestion import late, source_digests, static_versions
from include.ingestion.event_rows import EventRows, is_stored
from include.ingestion.file_reader import FileReader
from include.ingestion.read_back import read_back
from include.ingestion.recorded_intake import STAGE as NAME
from include.ingestion.recorded_intake import RecordedIntake
from include.ingestion.redriven import RowsToTake
from include.ingestion.restatement import audit_changes
from include.ingestion.sources import Delivery, read_source
from include.lake.digests import combine
from include.pipeline.ingest_outputs import IngestedSource, IngestOutputs
from include.pipeline.stage import Input, Outcome, Stage, StageContext, lost
from include.point_in_time import partitions
from include.records.records import StageResult

# The digest of a row leaves out what the label says.
LABEL = ("label.source", "label.column", "label.label_time")
FIELDS = ("cadence", "cut_off", "history", "sources", *LABEL)
LIBRARIES = ("duckdb", "numpy", "pyarrow")
# Most rows of a simulated portfolio that are read at once, and bytes of a row while it is taken in.
CHUNK_ROWS, ROW_BYTES = 1_500_000, 1_500
MAX_REASON = 2000  # characters of an error that a record keeps
MAX_REFUSED = 5  # partitions that a message names

log = logging.getLogger(__name__)


def inputs(context: StageContext) -> list[Input]:
    """Return nothing: a source is outside; `still_valid` looks at it every time."""
    return []


def still_valid(pairs: Sequence[tuple[StageContext, StageResult]]) -> set[str]:
    """Return the keys of the partitions whose sources and raw rows are as recorded.

    Each source's bytes are looked at once for all of them.
    """
    with FileReader() as reader:
        return source_digests.still_valid(pairs, reader)


def compute(context: StageContext) -> Outcome:
    """Take in one partition.

    Raises:
        SourceError: a source cannot be read, or a closed partition's rows come late and the source
            refuses them.
        RestatementRefused: the partition is recorded with other rows, and no reason was given.
    """
    ((_, outcome),) = _take_in([context])
    if isinstance(outcome, EvergreenError):
        raise outcome
    return outcome


def compute_range(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    """Take in many partitions, reading each source once; one that is refused stops itself alone.

    Raises:
        RestatementRefused: after all others are through, naming the partitions that are recorded
            with other rows.
    """
    refused: list[str] = []
    for context, outcome in _take_in(contexts):
        if isinstance(outcome, RestatementRefused):
            refused.append(str(outcome))
        elif isinstance(outcome, Busy):
            yield context, lost(outcome)
        elif isinstance(outcome, EvergreenError):
            recorded = context.result(NAME)
            if recorded is not None and recorded.state == "done":
                raise outcome
            yield context, Outcome("failed", "", str(outcome)[:MAX_REASON])
        else:
            yield context, outcome
    if refused:
        more = len(refused) - MAX_REFUSED
        raise RestatementRefused(
            "\n".join(refused[:MAX_REFUSED]) + (f"\nand {more} more" if more > 0 else "")
        )


def _take_in(
    contexts: Sequence[StageContext],
) -> Iterator[tuple[StageContext, Outcome | EvergreenError]]:
    """Yield what each partition comes to, an error where it is refused."""
    with FileReader() as reader:
        for chunk in _chunks(contexts):
            intake = _Intake(chunk, reader)
            for context in chunk:
                try:
                    outcome: Outcome | EvergreenError = intake.take_in(
                        replace(context, lake=chunk[0].lake)
                    )
                except EvergreenError as error:
                    outcome = error
                yield context, outcome


def _chunks(contexts: Sequence[StageContext]) -> Iterator[list[StageContext]]:
    """Cut a range so that a simulated portfolio of any size fits into memory."""
    customers = max(
        (s.simulator.customers for s in contexts[0].use_case.sources.values() if s.simulator),
        default=0,
    )
    # Three simulated customers give about one row a day.
    rows = min(CHUNK_ROWS, contexts[0].settings.memory_bytes // ROW_BYTES)
    size = max(1, rows // (customers // 3 + 1)) if customers else len(contexts)
    for start in range(0, len(contexts), size):
        yield list(contexts[start : start + size])


def describe_sources(result: StageResult) -> list[str]:
    """Return in words what a person should know of a partition's record.

    That is late rows, taken or left, and versions of static sources that are still to come.
    """
    return _described(IngestOutputs.of(result))


def describe_observation(results: Sequence[StageResult]) -> list[str]:
    """Return in words since when each static source's versions are observed.

    What a partition before that knows is what was read then.
    """
    since: dict[str, str] = {}
    for result in results:
        for name, source in IngestOutputs.of(result).sources.items():
            if source.observed:
                since[name] = min(since.get(name, source.observed), source.observed)
    return [
        f"static source {name}: its versions are observed since {at[:16].replace('T', ' ')}"
        for name, at in since.items()
    ]


def _described(outputs: IngestOutputs) -> list[str]:
    return [
        text
        for name, source in outputs.sources.items()
        for text in (
            late.describe_late_rows(name, source),
            static_versions.describe_pending(name, source),
        )
        if text
    ]


class _Intake:
    """The intake of some partitions, one after the other, over sources that are read once."""

    def __init__(self, contexts: Sequence[StageContext], reader: FileReader) -> None:
        self._reader = reader
        self._record = RecordedIntake()
        self._redriven = RowsToTake(contexts)
        self._events = EventRows(contexts, reader, self._record)
        self._snapshots: dict[str, Delivery] = {}

    def take_in(self, context: StageContext) -> Outcome:
        """Take in one partition: all sources are read and compared before anything is written."""
        recorded = context.result(NAME)
        before = (
            IngestOutputs.of(recorded).sources
            if recorded is not None and recorded.state == "done"
            else {}
        )
        taken: dict[str, IngestedSource] = {}
        fresh: dict[str, pa.Table] = {}
        pending: dict[str, pa.Table] = {}
        for name, source in context.use_case.sources.items():
            if source.kind == "static":
                taken[name], rows = static_versions.take_version(
                    name, context, self._record, partial(self._snapshot, name, context)
                )
                is_pending = taken[name].pending and name not in before
            else:
                taken[name], rows = self._take_events(name, source, context, before.get(name))
                is_pending = False
            if rows is not None:
                (pending if is_pending else fresh)[name] = rows
        entries = tuple(audit_changes(context, self._record, before, taken, fresh))
        empty = _empty_sources(context, taken)
        if before or not empty:
            for name, rows in fresh.items():
                is_equal = name in before and before[name].digest == taken[name].digest
                if not is_equal or not is_stored(context, name, taken[name]):
                    key = taken[name].stored_under(context.key)
                    context.lake.set_partition(
                        context.table(f"raw/{name}"),
                        key,
                        rows,
                        fence=context.fence,
                        shared=context.use_case.sources[name].kind == "static",
                    )
            for name, rows in pending.items():
                if version := taken[name].pending:
                    context.lake.set_partition(
                        context.table(f"raw/{name}"),
                        version.version,
                        rows,
                        fence=context.fence,
                        shared=True,
                    )
        if empty:
            if not before:  # nothing was written
                taken = {
                    name: source
                    if source.version
                    else msgspec.structs.replace(source, rows=0, digest="")
                    for name, source in taken.items()
                }
            reason = (
                f"no rows of {', '.join(empty)} arrived in {context.key}; deliver them, or "
                "write empty: allow for the source"
            )
            return Outcome(
                "blocked", "", reason, IngestOutputs(sources=taken).plain(), entries=entries
            )
        digest = combine([f"{name}:{source.digest}" for name, source in sorted(taken.items())])
        outputs = IngestOutputs(sources=taken)
        return Outcome(
            "done", digest, "; ".join(_described(outputs)), outputs.plain(), entries=entries
        )

    def _take_events(
        self, name: str, source: Source, context: StageContext, before: IngestedSource | None
    ) -> tuple[IngestedSource, pa.Table | None]:
        """Return what a partition takes of an event source; rows where they are to be written."""
        if partitions.within(source.history, context.key):
            taken, rows = self._events.take(name, source, context, before)
            if rows is None:
                return taken, None
            return self._redriven.add_to(name, context, taken, rows)
        outside = IngestedSource(
            rows=0, digest="", source_digest="", files=[], columns=[], expected=False
        )
        # The source's history was narrowed since: what the partition took of it goes.
        narrowed = before is not None and before.rows
        rows = context.lake.read(context.table(f"raw/{name}"), keys=[]) if narrowed else None
        return outside, rows

    def _snapshot(self, name: str, context: StageContext) -> Delivery:
        """Return a static source as it is now, read once for all partitions."""
        if name not in self._snapshots:
            self._snapshots[name] = read_source(
                name, context.use_case, context.settings, self._reader, [context.period]
            )
        return self._snapshots[name]


def _empty_sources(context: StageContext, taken: dict[str, IngestedSource]) -> list[str]:
    """Return the sources that block an empty partition and of which nothing arrived in it.

    Redriven and late rows are of other partitions, so they make none less empty.
    """
    return [
        name
        for name, source in taken.items()
        if source.rows == (source.redriven or 0) + (source.late or 0)
        and source.is_expected
        and context.use_case.sources[name].empty == "block"
    ]


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    compute_range=compute_range,
    still_valid=still_valid,
    read_back=read_back,
)
