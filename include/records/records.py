"""The records: what every partition is meant for, what every stage found, who works, which model serves, and the audit log.

One SQL database by URL (SQLite or PostgreSQL). Each method is one transaction and recognises its own write when it is
called again after a lost answer; `session=` puts it into a transaction of the caller's instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, get_args

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from include.errors import Busy, ConfigError
from include.records import audit, leases, migrate, read_blocks
from include.records.audit import AuditEntry, AuditFault, AuditRecord
from include.records.database import Database
from include.records.leases import Holder, Lease, Leases
from include.records.routes import UNSET, Mode, Model, Route
from include.records.schema import (
    FeatureSetRow,
    ModelRow,
    ObservedRow,
    OnlineRow,
    OpponentRow,
    PartitionRow,
    ReadsRow,
    RedrivenRow,
    ResultRow,
    RouteRow,
    insert_missing,
    locked,
    plain,
    to_json,
)
from include.records.serving import FeatureSet, Observed, Opponent, ServingRecords, named

__all__ = [
    "UNSET", "AuditEntry", "AuditFault", "AuditRecord", "FeatureSet", "Holder", "Lease", "Mode", "Model", "Observed", "Opponent",
    "Partition", "Records", "Route", "StageResult", "Target",
]  # fmt: skip

Target = Literal["data", "judged", "deployed"]
MODES: tuple[str, ...] = get_args(Mode)
TARGETS: tuple[str, ...] = get_args(Target)


@dataclass(frozen=True)
class Partition:
    """What a partition is meant for: mode and target only rise; `actor` and `at` are those of the last rise."""

    use_case: str
    key: str
    mode: Mode
    target: Target
    actor: str
    at: datetime


@dataclass(frozen=True)
class StageResult:
    """What a stage found for a partition; `reads` are triples (table, key, digest), in no order that means anything."""

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


class Records(ServingRecords):
    """The records database of one installation."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __repr__(self) -> str:
        return f"<Records {self.database.name}>"

    @classmethod
    def open(cls, url: str, *, patience: float = 10.0) -> Records:
        """Return the records at a SQLAlchemy URL; connects on first use, changes no table.

        Raises:
            ConfigError: the URL is wrong, or of a database that is not supported.
        """
        return cls(_database(url, patience))

    def migrate(self) -> None:
        """Bring the tables to this version; several processes may call it at once."""
        migrate.upgrade(self.database)

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        self.database.close()

    def transaction(self) -> AbstractContextManager[Session]:
        """Open one write transaction; audit entries appended in it are written as it commits."""
        return self.database.transaction()

    # partitions

    def raise_partition(
        self, use_case: str, key: str, *, mode: Mode, target: Target, actor: str, at: datetime, session: Session | None = None
    ) -> Partition:
        """Raise mode and target of a partition to at least these; a change is audited."""

        def work(open_session: Session) -> Partition:
            values = {"mode": mode, "target": target, "actor": actor, "at": at}
            created = insert_missing(open_session, PartitionRow, use_case=use_case, key=key, **values)
            row = locked(open_session, PartitionRow, use_case, key)
            assert row is not None
            before = None if created else [row.mode, row.target]
            row.mode, row.target = max(row.mode, mode, key=MODES.index), max(row.target, target, key=TARGETS.index)
            if before != (after := [row.mode, row.target]):
                row.actor, row.at = actor, at
                audit.append(
                    open_session, AuditEntry("partition.raised", use_case, key, actor, {"before": before, "after": after}, at)
                )
                open_session.flush()
            return plain(Partition, row)

        if mode not in MODES or target not in TARGETS:
            raise ConfigError(f"partition {key}: mode is one of {MODES} and target of {TARGETS}, not {mode!r} and {target!r}")
        return self.database.write(work, session)

    def partition(self, use_case: str, key: str) -> Partition | None:
        """Return what a partition is meant for, or None if nobody asked for it yet."""
        row = self.database.read(lambda session: session.get(PartitionRow, (use_case, key)))
        return None if row is None else plain(Partition, row)

    def partitions(self, use_case: str) -> list[Partition]:
        """Return the partitions of a use case, by key."""
        return self._list(Partition, PartitionRow, use_case, PartitionRow.key)

    # leases

    def claim(self, use_case: str, stage: str, key: str, *, owner: str, attempt: int, ttl: float, wait: float = 0.0) -> Lease:
        """Take the lease of a thing, waiting up to `wait` seconds; raises Busy and names the holder."""
        return leases.claim(self.database, use_case, stage, key, owner=owner, attempt=attempt, ttl=ttl, wait=wait)

    def claim_all(
        self, use_case: str, stage: str, keys: Sequence[str], *, owner: str, attempt: int, ttl: float, only_free: bool = False
    ) -> Leases:
        """Take the leases of many keys in one transaction: all (else Busy, which names a holder), or those that are free."""
        return leases.claim_all(self.database, use_case, stage, keys, owner=owner, attempt=attempt, ttl=ttl, only_free=only_free)

    def holders(self, use_case: str) -> list[Holder]:
        """Return who is at work on a use case."""
        return self.database.read(lambda session: leases.holders(session, use_case))

    # results

    def result(self, use_case: str, key: str, stage: str) -> StageResult | None:
        """Return what a stage found for a partition."""

        def work(session: Session) -> StageResult | None:
            row = session.get(ResultRow, (use_case, key, stage))
            return None if row is None else _plain(session, use_case, [row])[0]

        return self.database.read(work)

    def results(
        self, use_case: str, *, stage: str | Sequence[str] | None = None, keys: Sequence[str] | None = None
    ) -> list[StageResult]:
        """Return results by key and stage; `stage` (one or more) and `keys` narrow them."""
        where = [] if stage is None else [ResultRow.stage.in_([stage] if isinstance(stage, str) else stage)]
        if keys is not None and len(keys) <= 500:
            where.append(ResultRow.key.in_(keys))
        statement = select(ResultRow).where(ResultRow.use_case == use_case, *where).order_by(ResultRow.key, ResultRow.stage)
        found = self.database.read(lambda session: _plain(session, use_case, session.scalars(statement).all()))
        wanted = None if keys is None else set(keys)
        return [result for result in found if wanted is None or result.key in wanted]

    def states(self, use_case: str) -> dict[tuple[str, str], str]:
        """Return the state of every result, by (stage, key): no more is read than that."""
        statement = select(ResultRow.stage, ResultRow.key, ResultRow.state).where(ResultRow.use_case == use_case)
        rows = self.database.read(lambda session: session.execute(statement).all())
        return {(stage, key): state for stage, key, state in rows}

    def commit(
        self,
        lease: Lease,
        result: StageResult,
        *,
        entries: Sequence[AuditEntry] = (),
        also: Callable[[Session], None] | None = None,
    ) -> None:
        """Record a result, its audit entries and further writes in one transaction, if the lease's token is still current.

        The same result again, with the same token, is a no-op.

        Raises:
            Busy: a newer claim has fenced this lease off; nothing was written.
        """
        if (result.use_case, result.stage, result.key) != (lease.use_case, lease.stage, lease.key):
            raise Busy(f"{lease.app}: this lease does not cover {result.use_case}/{result.stage}/{result.key}; claim that one")
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
            if also is not None:
                also(session)

        self.database.write(work)

    # audit

    def append(self, entry: AuditEntry, *, session: Session | None = None) -> None:
        """Append one audit entry; with its `once` on record already, nothing happens."""
        entry = entry if session is not None else named(entry)
        self.database.write(lambda open_session: audit.append(open_session, entry), session)

    def verify(self, *, anchor: tuple[int, str] | None = None) -> AuditFault | None:
        """Return the first bad row of the audit log, or None; `anchor` is an earlier `head`, kept elsewhere."""
        return self.database.read(lambda session: audit.verify(session, anchor=anchor))

    def head(self) -> tuple[int, str]:
        """Return sequence and hash of the newest audit row."""
        return self.database.read(audit.head)

    def entries(
        self,
        use_case: str | None = None,
        *,
        action: str | None = None,
        subject: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[AuditRecord]:
        """Return audit rows in order of their sequence; `limit` keeps the newest."""
        return self.database.read(
            lambda session: audit.entries(session, use_case=use_case, action=action, subject=subject, after=after, limit=limit)
        )

    # the whole use case

    def forget(self, use_case: str, *, entry: AuditEntry | None = None) -> dict[str, int]:
        """Return the number of rows of a use case by table; with an audit entry, remove them.

        The audit log stays, and so do the leases, whose tokens must go on rising.
        """
        tables: tuple[type[Any], ...] = (
            PartitionRow, ResultRow, ReadsRow, ModelRow, RouteRow, ObservedRow, FeatureSetRow, OnlineRow, OpponentRow,
            RedrivenRow,
        )  # fmt: skip

        def work(session: Session) -> dict[str, int]:
            counts = {}
            for table in tables:
                mine = table.use_case == use_case
                counts[table.__tablename__] = session.scalar(select(func.count()).select_from(table).where(mine)) or 0
                if entry is not None:
                    session.execute(delete(table).where(mine))
            if entry is not None:
                audit.append(session, dataclasses.replace(entry, details={**entry.details, "rows": counts}))
            return counts

        return self.database.read(work) if entry is None else self.database.write(work)


@lru_cache(maxsize=4)
def _database(url: str, patience: float) -> Database:
    """Return one pool an address, however often it is opened in this process."""
    return Database(url, patience=patience, seal=audit.seal)


def _same(one: StageResult, other: StageResult) -> bool:
    first, second = (dataclasses.replace(result, reads=sorted(map(list, result.reads))) for result in (one, other))
    return to_json(vars(first)) == to_json(vars(second))


def _kept(session: Session, result: StageResult) -> list[Any]:
    """Return what is stored of a result's reads: themselves, or of a long list its blocks, which are written where new."""
    if len(result.reads) <= read_blocks.LONG:
        return result.reads
    found = read_blocks.blocks(result.reads)
    for digest, block in found.items():
        insert_missing(session, ReadsRow, use_case=result.use_case, digest=digest, reads=block)
    return list(found)


def _plain(session: Session, use_case: str, rows: Sequence[ResultRow]) -> list[StageResult]:
    """Return results with their reads; a block that several share is read once, and is one object in all of them."""
    wanted = sorted({digest for row in rows for digest in read_blocks.missing(row.reads)})
    known: dict[str, list[list[str]]] = {}
    for start in range(0, len(wanted), 500):
        chosen = ReadsRow.digest.in_(wanted[start : start + 500])
        found = session.execute(select(ReadsRow.digest, ReadsRow.reads).where(ReadsRow.use_case == use_case, chosen))
        known |= {str(digest): reads for digest, reads in found.all()}
    return [dataclasses.replace(plain(StageResult, row), reads=read_blocks.whole(row.reads, known)) for row in rows]


def _fingerprint(entry: AuditEntry) -> str:
    return hashlib.sha256(to_json(vars(entry), sort=True).encode()).hexdigest()[:16]
