"""What every stage found for every partition, with what it has read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Busy
from include.records import audit, read_blocks
from include.records.audit import AuditEntry
from include.records.database import Database
from include.records.leases import Lease
from include.records.schema import (
    ReadsRow,
    ResultRow,
    insert_missing,
    locked,
    plain,
    to_json,
)


@dataclass(frozen=True)
class StageResult:
    """What a stage found for a partition; `reads` are triples (table, key, digest), in no order
    that means anything.
    """

    use_case: str
    key: str
    stage: str
    state: str
    digest: str
    reason: str
    outputs: dict[str, Any]
    reads: list[list[str]]
    memo_key: str
    mode: str
    started_at: datetime
    finished_at: datetime
    seconds: float
    git_commit: str
    token: int = 0


class Results:
    """The results of all stages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, use_case: str, key: str, stage: str) -> StageResult | None:
        """Return what a stage found for a partition."""

        def work(session: Session) -> StageResult | None:
            row = session.get(ResultRow, (use_case, key, stage))
            return None if row is None else _plain(session, use_case, [row])[0]

        return self._database.read(work)

    def of(
        self,
        use_case: str,
        *,
        stage: str | Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StageResult]:
        """Return results by key and stage; `stage` (one or more) and `keys` narrow them."""
        where = (
            []
            if stage is None
            else [ResultRow.stage.in_([stage] if isinstance(stage, str) else stage)]
        )
        if keys is not None and len(keys) <= 500:
            where.append(ResultRow.key.in_(keys))
        statement = (
            select(ResultRow)
            .where(ResultRow.use_case == use_case, *where)
            .order_by(ResultRow.key, ResultRow.stage)
        )
        found = self._database.read(
            lambda session: _plain(session, use_case, session.scalars(statement).all())
        )
        wanted = None if keys is None else set(keys)
        return [result for result in found if wanted is None or result.key in wanted]

    def states(self, use_case: str) -> dict[tuple[str, str], str]:
        """Return the state of every result, by (stage, key): no more is read than that."""
        statement = select(ResultRow.stage, ResultRow.key, ResultRow.state).where(
            ResultRow.use_case == use_case
        )
        rows = self._database.read(lambda session: session.execute(statement).all())
        return {(stage, key): state for stage, key, state in rows}

    def commit(
        self,
        lease: Lease,
        result: StageResult,
        *,
        entries: Sequence[AuditEntry] = (),
        in_transaction: Callable[[Session], None] | None = None,
    ) -> None:
        """Record a result, its audit entries and further writes in one transaction, if the lease's
        token is still current.

        The same result again, with the same token, is a no-op.

        Raises:
            Busy: a newer claim has fenced this lease off; nothing was written.
        """
        if (result.use_case, result.stage, result.key) != (lease.use_case, lease.stage, lease.key):
            raise Busy(
                f"{lease.app}: this lease does not cover "
                f"{result.use_case}/{result.stage}/{result.key}; claim that one"
            )
        result = dataclasses.replace(result, token=lease.token)

        def work(session: Session) -> None:
            lease.hold(session)
            row = locked(session, ResultRow, result.use_case, result.key, result.stage)
            if row is not None and _same(_plain(session, result.use_case, [row])[0], result):
                return
            session.merge(ResultRow(**{**vars(result), "reads": _kept(session, result)}))
            for number, entry in enumerate(entries):
                once = entry.once or f"{lease.app}#{lease.token}/{number}/{_fingerprint(entry)}"
                audit.append(session, dataclasses.replace(entry, once=once))
            if in_transaction is not None:
                in_transaction(session)

        self._database.write(work)


def _same(one: StageResult, other: StageResult) -> bool:
    first, second = (
        dataclasses.replace(result, reads=sorted(map(list, result.reads)))
        for result in (one, other)
    )
    return to_json(vars(first)) == to_json(vars(second))


def _kept(session: Session, result: StageResult) -> list[Any]:
    """Return what is stored of a result's reads: themselves, or of a long list its blocks, which
    are written where new.
    """
    if len(result.reads) <= read_blocks.LONG:
        return result.reads
    found = read_blocks.blocks(result.reads)
    for digest, block in found.items():
        insert_missing(session, ReadsRow, use_case=result.use_case, digest=digest, reads=block)
    return list(found)


def _plain(session: Session, use_case: str, rows: Sequence[ResultRow]) -> list[StageResult]:
    """Return results with their reads; a block that several share is read once, and is one
    object in all of them.
    """
    wanted = sorted({digest for row in rows for digest in read_blocks.missing(row.reads)})
    known: dict[str, list[list[str]]] = {}
    for start in range(0, len(wanted), 500):
        chosen = ReadsRow.digest.in_(wanted[start : start + 500])
        found = session.execute(
            select(ReadsRow.digest, ReadsRow.reads).where(ReadsRow.use_case == use_case, chosen)
        )
        known |= {str(digest): reads for digest, reads in found.all()}
    return [
        dataclasses.replace(plain(StageResult, row), reads=read_blocks.whole(row.reads, known))
        for row in rows
    ]


def _fingerprint(entry: AuditEntry) -> str:
    return hashlib.sha256(to_json(vars(entry), sort=True).encode()).hexdigest()[:16]
