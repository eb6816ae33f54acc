"""Redriven rows: a person takes them out of quarantine, and a later partition takes them in.

It is the first partition that was not ingested yet when they were redriven.

They arrive at the start of its arrival interval, so no earlier `as_of` sees them, and
the partition that they come from keeps its digest. Which partition takes a row is on record from
the start: whatever order partitions run in, it enters that one, and a rerun takes the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.ingestion.columns import ARRIVED, FILE, REDRIVEN, ROW
from include.ingestion.raw_rows import partition_digest
from include.lake.digests import combine
from include.lake.sql import TIMESTAMP
from include.pipeline.ingest_outputs import IngestedSource
from include.pipeline.stage import StageContext
from include.point_in_time.partitions import Period
from include.records import audit
from include.records.audit import AuditEntry
from include.records.leases import Lease
from include.records.records import Records
from include.records.rows import insert_missing, plain
from include.records.schema import RedrivenRow


@dataclass(frozen=True, slots=True)
class Redriven:
    """A redriven row: where it lay in quarantine, and the partition that takes it (`into`).

    `content` has its values as text by column, corrections among them.
    """

    source: str
    partition: str
    file: str
    row: int
    into: str
    content: dict[str, str]


class RowsToTake:
    """The redriven rows that some partitions take, read from the records once."""

    def __init__(self, contexts: Sequence[StageContext]) -> None:
        self._rows: dict[tuple[str, str], list[Redriven]] = {}
        for row in read_redriven(
            contexts[0].records,
            contexts[0].use_case.name,
            first=min(context.key for context in contexts),
        ):
            self._rows.setdefault((row.source, row.into), []).append(row)

    def add_to(
        self, name: str, context: StageContext, source: IngestedSource, rows: pa.Table
    ) -> tuple[IngestedSource, pa.Table]:
        """Return what a partition took of a source, and its rows, with those redriven into it."""
        redriven = self._rows.get((name, context.key))
        if not redriven:
            return source, rows
        declared = context.use_case.sources[name]
        added = as_raw_rows(redriven, context.period)
        rows = pa.concat_tables([rows, added], promote_options="default")
        source = msgspec.structs.replace(
            source,
            rows=len(rows),
            digest=partition_digest(rows, declared),
            source_digest=combine(
                [source.source_digest, f"redriven:{partition_digest(added, declared)}"]
            ),
            redriven=len(added),
        )
        return source, rows


def as_raw_rows(rows: Sequence[Redriven], period: Period) -> pa.Table:
    """Return rows as ingestion writes them, arrived at the start of a partition's interval."""
    names = sorted({name for row in rows for name in row.content})
    columns: dict[str, pa.Array] = {
        name: pa.array([row.content.get(name) for row in rows], pa.string()) for name in names
    }
    columns[FILE] = pa.array([f"{REDRIVEN}{row.partition}/{row.file}" for row in rows], pa.string())
    columns[ROW] = pa.array([row.row for row in rows], pa.int64())
    arrived = np.full(len(rows), np.datetime64(period.arrival_start.replace(tzinfo=None), "us"))
    return pa.table({**columns, ARRIVED: pa.array(arrived).cast(TIMESTAMP)})


def read_redriven(records: Records, use_case: str, *, first: str = "") -> list[Redriven]:
    """Return the redriven rows that partitions from `first` on take, in a stable order."""
    order = (
        RedrivenRow.into,
        RedrivenRow.source,
        RedrivenRow.partition,
        RedrivenRow.file,
        RedrivenRow.row,
    )
    statement = (
        select(RedrivenRow)
        .where(RedrivenRow.use_case == use_case, RedrivenRow.into >= first)
        .order_by(*order)
    )
    return records.database.read(
        lambda session: [plain(Redriven, row) for row in session.scalars(statement)]
    )


def record_redriven(
    records: Records, lease: Lease, rows: Sequence[Redriven], entry: AuditEntry
) -> None:
    """Record rows and the audit entry in one transaction.

    The lease is that of the ingestion which takes the rows: while it is held nobody ingests that
    partition.

    Raises:
        Conflict: one of them is redriven already; nothing was written.
        Busy: the lease is lost.
    """

    def write(session: Session) -> None:
        lease.hold(session)
        if entry.once is not None and audit.is_recorded(session, entry.once):
            return  # the answer to this very write was lost
        for row in rows:
            values = {
                "use_case": lease.use_case,
                "at": entry.at,
                **{name: getattr(row, name) for name in Redriven.__slots__},
            }
            if not insert_missing(session, RedrivenRow, **values):
                raise Conflict(
                    f"{row.source} {row.partition}: {row.file}, row {row.row} is redriven "
                    "already; leave it out"
                )
        audit.append(session, entry)

    records.database.write(write)
