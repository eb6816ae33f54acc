"""Redriven rows: taken out of quarantine by a person, and taken in by the first partition that was
not ingested yet.

They arrive at the start of that partition's arrival interval, so no earlier `as_of` sees them, and
the partition that they come from keeps its digest. Which partition takes a row is on record from
the start: whatever order partitions run in, it enters that one, and a rerun takes the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from include.errors import Conflict
from include.ingestion.arrival import content_digest
from include.ingestion.columns import ARRIVED, FILE, REDRIVEN, ROW
from include.lake.digests import combine
from include.lake.sql import TIMESTAMP
from include.pipeline.stage import StageContext
from include.point_in_time.partitions import Period
from include.records import audit
from include.records.audit import AuditEntry
from include.records.leases import Lease
from include.records.records import Records
from include.records.schema import RedrivenRow, insert_missing, plain

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Redriven:
    """One row: where it lay in quarantine, the partition that takes it, and its values as text,
    corrections among them.
    """

    source: str
    partition: str
    file: str
    row: int
    into: str
    content: dict[str, str]


class Taken:
    """The redriven rows that some partitions take, read from the records once."""

    def __init__(self, contexts: Sequence[StageContext]) -> None:
        self._rows: dict[tuple[str, str], list[Redriven]] = {}
        for row in recorded(
            contexts[0].records,
            contexts[0].use_case.name,
            first=min(context.key for context in contexts),
        ):
            self._rows.setdefault((row.source, row.into), []).append(row)

    def added(
        self, name: str, context: StageContext, facts: Facts, rows: pa.Table
    ) -> tuple[Facts, pa.Table]:
        """Return the facts and rows of a source with those that a person has redriven into this
        partition.
        """
        mine = self._rows.get((name, context.key))
        if not mine:
            return facts, rows
        source = context.use_case.sources[name]
        more = table(mine, context.period)
        rows = pa.concat_tables([rows, more], promote_options="default")
        return facts | {
            "rows": len(rows),
            "digest": content_digest(rows, source),
            "source_digest": combine(
                [facts["source_digest"], f"redriven:{content_digest(more, source)}"]
            ),
            "redriven": len(more),
        }, rows


def table(rows: Sequence[Redriven], period: Period) -> pa.Table:
    """Return rows as ingestion writes them, arrived at the start of a partition's interval."""
    names = sorted({name for row in rows for name in row.content})
    columns: dict[str, pa.Array] = {
        name: pa.array([row.content.get(name) for row in rows], pa.string()) for name in names
    }
    columns[FILE] = pa.array([f"{REDRIVEN}{row.partition}/{row.file}" for row in rows], pa.string())
    columns[ROW] = pa.array([row.row for row in rows], pa.int64())
    arrived = np.full(len(rows), np.datetime64(period.arrival_start.replace(tzinfo=None), "us"))
    return pa.table({**columns, ARRIVED: pa.array(arrived).cast(TIMESTAMP)})


def recorded(records: Records, use_case: str, *, first: str = "") -> list[Redriven]:
    """Return the redriven rows of a use case that partitions from `first` on take, in a stable
    order.
    """
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


def record(records: Records, lease: Lease, rows: Sequence[Redriven], entry: AuditEntry) -> None:
    """Record rows and the audit entry in one transaction, under the lease of the ingestion that
    takes them.

    Raises:
        Conflict: one of them is redriven already; nothing was written.
        Busy: the lease is lost.
    """

    def write(session: Any) -> None:
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
