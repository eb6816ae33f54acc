"""Late rows: rows whose partition was closed before anybody could see them.

By their own time they arrived in it. A row that a replica shows a minute after midnight, a file
that comes a week later, a value that is changed in place: nothing of it is on record, and no later
partition's interval holds it. Only the run of the newest complete partition takes such rows; they
are created at the start of its arrival interval, so no earlier `as_of` sees them (versions of one
record in their order, see `validation.duplicates`), and their `source_file` says where they belong
(`late://PARTITION/FILE`). Every other run leaves them and names them. A late row whose key is on
record in its partition with other values is a correction. A copy of a row that is on record is
neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.arrival import Arrivals
from include.ingestion.arrival_times import MICRO
from include.ingestion.columns import (
    ARRIVED,
    BELONGS,
    CORRECTS,
    FILE,
    GUESSED,
    LATE,
    REDRIVEN,
    ROW,
    headers,
)
from include.ingestion.raw_rows import describe_row, drop_unfilled, join_rows
from include.ingestion.row_comparison import (
    find_new_rows,
    find_restored_rows,
    subtract_rows,
    without_keys_of,
)
from include.ingestion.values import moment
from include.lake.sql import PARTITION, TIMESTAMP, connect
from include.pipeline.ingest_outputs import IngestedSource, WaitingRows
from include.pipeline.stage import StageContext
from include.point_in_time.partitions import Period

SHOWN = 3


@dataclass(frozen=True)
class LateRows:
    """The late rows of one source.

    `rows` are raw rows with three further columns: the closed partition that each belongs to, and
    whether it is a correction and its arrival was guessed. `compared` has the checksums of what was
    offered for the partitions that had to be compared row by row.
    """

    rows: pa.Table = field(default_factory=lambda: pa.table({}))
    compared: dict[str, str] = field(default_factory=dict)

    def of(self, key: str) -> LateRows:
        """Return those that belong to a partition."""
        return self._chosen(pc.equal, key)

    def before(self, key: str) -> LateRows:
        """Return those that belong to partitions older than one."""
        return self._chosen(pc.less, key)

    def until(self, key: str) -> LateRows:
        """Return those that belong to a partition or to older ones."""
        return self._chosen(pc.less_equal, key)

    def timed(self) -> LateRows:
        """Return those with a readable arrival; the others are lines that nobody can place."""
        if not len(self.rows):
            return self
        return LateRows(self.rows.filter(pc.invert(self.rows.column(GUESSED))))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def corrections(self) -> int:
        """How many of them correct a row on record."""
        return int(pc.sum(self.rows.column(CORRECTS)).as_py()) if len(self.rows) else 0

    @property
    def files(self) -> set[str]:
        """The files that they stand in."""
        return set(self.rows.column(FILE).unique().to_pylist()) if len(self.rows) else set()

    def as_taken_by(self, context: StageContext) -> pa.Table:
        """Return them as raw rows of the partition that takes them."""
        if not len(self):
            return self.rows
        files = [
            f"{LATE}{key}/{file}" for key, file in zip(*self._lists(BELONGS, FILE), strict=True)
        ]
        arrived = np.full(
            len(self), np.datetime64(context.period.arrival_start.replace(tzinfo=None), "us")
        )
        rows = drop_unfilled(self.rows.drop_columns([BELONGS, CORRECTS, GUESSED]))
        rows = rows.set_column(rows.column_names.index(FILE), FILE, pa.array(files, pa.string()))
        return rows.set_column(
            rows.column_names.index(ARRIVED), ARRIVED, pa.array(arrived).cast(TIMESTAMP)
        )

    def waiting(self) -> WaitingRows:
        """Return their numbers and some of them, for the record of a run that leaves them."""
        sample = self.rows.slice(0, SHOWN).drop_columns([BELONGS, CORRECTS, GUESSED]).to_pylist()
        return WaitingRows(
            rows=len(self),
            corrections=self.corrections,
            partitions=sorted(set(self._lists(BELONGS)[0])),
            sample=[describe_row(row) for row in sample],
        )

    def _chosen(self, compare: Callable[[Any, str], Any], key: str) -> LateRows:
        if not len(self):
            return self
        return LateRows(self.rows.filter(compare(self.rows.column(BELONGS), key)))

    def _lists(self, *names: str) -> list[list[str]]:
        return [self.rows.column(name).to_pylist() for name in names]


def find_late_rows(
    name: str,
    context: StageContext,
    recorded: Mapping[str, IngestedSource],
    reads: Sequence[Arrivals],
    closed: Sequence[Period],
) -> LateRows:
    """Return the rows of some reads that belong to closed partitions and are new to the record.

    New is what is neither on record in its partition nor taken late by another one. `recorded` is
    what ingestion recorded of the source, by partition.
    """
    source, table = context.use_case.sources[name], context.table(f"raw/{name}")
    stored = set(context.lake.keys(table)) if closed else set()
    suspects: dict[str, pa.Table] = {}
    checksums: dict[str, str] = {}
    compared = {
        key: checksum
        for _, by_run in sorted(recorded.items())
        for key, checksum in (by_run.compared or {}).items()
    }
    for period in closed:
        key, start, end = period.key, period.arrival_start, period.as_of
        # What the lake has lost is read again, not late.
        if recorded[key].rows and key not in stored:
            continue
        if len(reads) == 1:
            checksums[key] = reads[0].checksum(start, end)
            # What was last compared says more than the record: a value may be changed in place, and
            # back again.
            expected = (
                [compared[key]] if key in compared else [recorded[key].checksum, recorded[key].seen]
            )
            if checksums[key] in expected:
                continue
        rows = join_rows([read.between(start, end, guessed=True) for read in reads])
        if len(rows):
            suspects[key] = _belonging_to(rows, key)
    if not suspects:
        return LateRows()
    offered = join_rows(list(suspects.values()))
    on_record = _own_rows(context.lake.read(table, keys=sorted(suspects)))
    moved = _read_moved(name, context, recorded)
    taken = join_rows([pa.table({}), *(_moved_from(moved, key) for key in sorted(suspects))])
    new = find_new_rows(offered, [on_record, taken], source)
    rows = join_rows([new, find_restored_rows(offered, new, taken, source)])
    return LateRows(rows, {key: checksums[key] for key in suspects if key in checksums})


def is_record_complete(
    name: str,
    context: StageContext,
    recorded: Mapping[str, IngestedSource],
    rows: pa.Table,
    late: LateRows,
) -> bool:
    """Tell whether all recorded rows of a partition are still offered, or corrected by late ones.

    `rows` is what the source offers for the partition now.
    """
    source = context.use_case.sources[name]
    on_record = _own_rows(context.lake.read(context.table(f"raw/{name}"), keys=[context.key]))
    missing = find_new_rows(on_record, [_belonging_to(rows, context.key)], source)
    moved = _moved_from(_read_moved(name, context, recorded), context.key)
    return len(without_keys_of(missing, join_rows([late.rows, moved]), source)) == 0


def read_taken_rows(name: str, context: StageContext) -> pa.Table:
    """Return the late rows that a recorded partition has taken."""
    rows = context.lake.read(context.table(f"raw/{name}"), keys=[context.key])
    if not len(rows):
        return drop_unfilled(rows)
    # The lake gives every column of the table: with those of other deliveries the rows would have
    # another digest than when they were taken.
    return drop_unfilled(_moved(rows, context.use_case.sources[name]).drop_columns([PARTITION]))


def without_taken_rows(
    name: str, context: StageContext, recorded: Mapping[str, IngestedSource], rows: pa.Table
) -> pa.Table:
    """Return a partition's own rows but for those that came late and that another has taken."""
    moved = _moved_from(_read_moved(name, context, recorded), context.key)
    left = subtract_rows(rows, moved)
    # A column that only the taken rows fill is none of this partition's, as if they had never stood
    # there.
    declared = headers(context.use_case.sources[name]).values() if len(left) else ()
    return drop_unfilled(left, keep={FILE, ROW, ARRIVED, *declared})


def late_rows_error(name: str, late: LateRows, context: StageContext) -> SourceError:
    """Return the error that names late rows which a source does not take."""
    waiting = late.waiting()
    return SourceError(
        f"{context.use_case.name}, source {name}: {len(late)} rows belong to partitions that are "
        f"closed ({_describe_partitions(waiting)}), such as {' | '.join(waiting.sample)}. Ingest "
        "the closed partition again with `--restate REASON`, or write late: next to have the "
        "newest partition take them"
    )


def describe_late_rows(name: str, recorded: IngestedSource) -> str:
    """Return in words what a partition's record says of late rows; empty where there were none."""
    parts = []
    if recorded.late:
        parts.append(
            f"{recorded.late} late rows taken ({recorded.corrections or 0} of them corrections)"
        )
    if waiting := recorded.waiting:
        parts.append(
            f"{waiting.rows} late rows left ({waiting.corrections} of them corrections; "
            f"{_describe_partitions(waiting)}) for the next newest partition, such as "
            f"{waiting.sample[0]}"
        )
    return f"{name}: {'; '.join(parts)}" if parts else ""


def _describe_partitions(waiting: WaitingRows) -> str:
    keys = waiting.partitions
    return f"of {', '.join(keys[:SHOWN])}" + (
        f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    )


def _own_rows(rows: pa.Table) -> pa.Table:
    """Return the rows of the lake that are neither redriven nor late, with `__belongs`."""
    if not len(rows):
        return rows
    marked = pc.or_(
        pc.starts_with(rows.column(FILE), LATE), pc.starts_with(rows.column(FILE), REDRIVEN)
    )
    rows = rows.filter(pc.invert(marked))
    return rows.append_column(BELONGS, rows.column(PARTITION)) if len(rows) else rows


def _belonging_to(rows: pa.Table, key: str) -> pa.Table:
    return rows.append_column(BELONGS, pa.array([key] * len(rows), pa.string()))


def _read_moved(
    name: str, context: StageContext, recorded: Mapping[str, IngestedSource]
) -> pa.Table:
    """Return all rows that partitions have taken late."""
    keys = sorted(key for key, source in recorded.items() if source.late)
    rows = context.lake.read(context.table(f"raw/{name}"), keys=keys) if keys else pa.table({})
    return _moved(rows, context.use_case.sources[name])


def _moved_from(moved: pa.Table, key: str) -> pa.Table:
    """Return those of the rows taken late that belong to a partition.

    Where an older record does not say to which one, that is all that came after it.
    """
    if not len(moved):
        return moved
    file = moved.column(FILE)
    belongs = pc.or_(pc.invert(pc.starts_with(file, LATE)), pc.starts_with(file, f"{LATE}{key}/"))
    return _belonging_to(
        moved.filter(pc.and_(belongs, pc.greater(moved.column(PARTITION), key))), key
    )


def _moved(rows: pa.Table, source: Source) -> pa.Table:
    """Return the rows that partitions took late: those so marked.

    In older records of an assumed arrival nothing is marked; there it is told by the event.
    """
    if not len(rows):
        return rows
    chosen = f"starts_with({FILE}, '{LATE}')"
    if source.assumed_lag is not None and source.event_time in rows.column_names:
        before = (
            f"{moment(source.event_time, source)} + INTERVAL {source.assumed_lag // MICRO} "
            f"MICROSECOND < {ARRIVED}"
        )
        chosen += f" OR ({before} AND NOT starts_with({FILE}, '{REDRIVEN}'))"
    with connect() as con:
        con.register("rows", rows)
        return con.sql(f"SELECT * FROM rows WHERE {chosen}").to_arrow_table()
