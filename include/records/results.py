"""Record what every stage came to for every partition, with what it has read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Busy
from include.records import audit, read_blocks
from include.records.audit import AuditEntry
from include.records.columns import to_json
from include.records.database import Database
from include.records.leases import Lease, Leases
from include.records.rows import insert_all_missing, locked, plain
from include.records.schema import ReadsRow, ResultRow

PARAMETERS = 500  # of one statement: SQLite takes 999 at least


@dataclass(frozen=True)
class StageResult:
    """What a stage came to for a partition.

    `reads` are triples (table, key, digest), in no order that means anything; `seconds` is how long
    it took; `token` that of the lease under which it was recorded.
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


class Commit(NamedTuple):
    """A result to record, with the audit entries and further writes of its transaction."""

    result: StageResult
    entries: Sequence[AuditEntry] = ()
    in_transaction: Callable[[Session], None] | None = None


class Results:
    """The results of all stages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, use_case: str, key: str, stage: str) -> StageResult | None:
        """Return what a stage came to for a partition, or None if that is not on record."""

        def work(session: Session) -> StageResult | None:
            row = session.get(ResultRow, (use_case, key, stage))
            return None if row is None else _with_reads(session, use_case, [row])[0]

        return self._database.read(work)

    def of(
        self,
        use_case: str,
        *,
        stage: str | Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StageResult]:
        """Return results by key and stage; `stage` (one or more) and `keys` narrow them."""
        statement = (
            select(ResultRow)
            .where(ResultRow.use_case == use_case)
            .order_by(ResultRow.key, ResultRow.stage)
        )
        if stage is not None:
            stages = [stage] if isinstance(stage, str) else stage
            statement = statement.where(ResultRow.stage.in_(stages))
        if keys is not None and len(keys) <= PARAMETERS:  # of more, all are read and chosen from
            statement = statement.where(ResultRow.key.in_(keys))
        results = self._database.read(
            lambda session: _with_reads(session, use_case, session.scalars(statement).all())
        )
        wanted = None if keys is None else set(keys)
        return [result for result in results if wanted is None or result.key in wanted]

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
        """Record a result with its audit entries and further writes in one transaction.

        The lease's token must still be current. The same result again, with the same token, is a
        no-op.

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
            if row is not None and _are_equal(
                _with_reads(session, result.use_case, [row])[0], result
            ):
                return  # this very commit, whose answer was lost
            _write_blocks(session, [result])
            _write(session, lease, Commit(result, entries, in_transaction), row)

        self._database.write(work)

    def commit_all(self, leases: Leases, commits: Sequence[Commit]) -> dict[str, Busy]:
        """Record results of one stage, a row each, in one transaction, as `commit` does.

        Returns, by key, why nothing was written of those whose lease is lost.
        """

        def work(session: Session) -> dict[str, Busy]:
            lost = leases.hold(session, [commit.result.key for commit in commits])
            held = [commit for commit in commits if leases.each[commit.result.key].app not in lost]
            if held:
                self._write_all(session, leases, held)
            return {
                commit.result.key: lost[app]
                for commit in commits
                if (app := leases.each[commit.result.key].app) in lost
            }

        commits = [
            commit._replace(
                result=dataclasses.replace(
                    commit.result, token=leases.each[commit.result.key].token
                )
            )
            for commit in commits
        ]
        return self._database.write(work) if commits else {}

    @staticmethod
    def _write_all(session: Session, leases: Leases, commits: Sequence[Commit]) -> None:
        use_case, stage = commits[0].result.use_case, commits[0].result.stage
        keys = [commit.result.key for commit in commits]
        statement = select(ResultRow).where(
            ResultRow.use_case == use_case,
            ResultRow.stage == stage,
            ResultRow.key >= min(keys),
            ResultRow.key <= max(keys),
        )
        rows = {
            row.key: row
            for row in session.scalars(
                statement.order_by(ResultRow.key)
                .with_for_update()
                .execution_options(populate_existing=True)
            )
        }
        recorded = [rows[key] for key in keys if key in rows]
        before = {each.key: each for each in _with_reads(session, use_case, recorded)}
        fresh = [
            commit
            for commit in commits
            if commit.result.key not in before
            # One that is equal is this very commit, whose answer was lost.
            or not _are_equal(before[commit.result.key], commit.result)
        ]
        _write_blocks(session, [commit.result for commit in fresh])
        for commit in fresh:
            key = commit.result.key
            _write(session, leases.each[key], commit, rows.get(key))


def _write(session: Session, lease: Lease, commit: Commit, row: ResultRow | None) -> None:
    """Write a result over its row, with what goes with it; the blocks of its reads are there."""
    values = {**vars(commit.result), "reads": _stored_reads(commit.result)}
    if row is None:
        session.add(ResultRow(**values))
    else:
        for name, value in values.items():
            setattr(row, name, value)
    for number, entry in enumerate(commit.entries):
        once = entry.once or f"{lease.app}#{lease.token}/{number}/{_fingerprint(entry)}"
        audit.append(session, dataclasses.replace(entry, once=once))
    if commit.in_transaction is not None:
        commit.in_transaction(session)


def _are_equal(left: StageResult, right: StageResult) -> bool:
    """Compare two results as they are stored; blocks of reads come back in another order."""

    def stored(result: StageResult) -> str:
        return to_json(
            vars(dataclasses.replace(result, reads=sorted(map(list, result.reads)))),
        )

    return stored(left) == stored(right)


def _stored_reads(result: StageResult) -> list[Any]:
    """Return a result's reads as they are stored: the triples, or the digests of their blocks."""
    if len(result.reads) <= read_blocks.LONG:
        return result.reads
    return list(read_blocks.split_into_blocks(result.reads))


def _write_blocks(session: Session, results: Sequence[StageResult]) -> None:
    """Write the blocks of long lists of reads that are new; results share most of theirs."""
    blocks: dict[str, list[list[str]]] = {}
    for result in results:
        if len(result.reads) > read_blocks.LONG:
            blocks |= read_blocks.split_into_blocks(result.reads)
    insert_all_missing(
        session,
        ReadsRow,
        [
            {"use_case": results[0].use_case, "digest": digest, "reads": block}
            # Sorted: two transactions with equal blocks then never wait for each other.
            for digest, block in sorted(blocks.items())
        ],
    )


def _with_reads(session: Session, use_case: str, rows: Sequence[ResultRow]) -> list[StageResult]:
    """Return results with their reads.

    A block that several results share is read once, and is one object in all of them.
    """
    digests = sorted({digest for row in rows for digest in read_blocks.block_digests(row.reads)})
    blocks: dict[str, list[list[str]]] = {}
    for start in range(0, len(digests), PARAMETERS):
        statement = select(ReadsRow.digest, ReadsRow.reads).where(
            ReadsRow.use_case == use_case,
            ReadsRow.digest.in_(digests[start : start + PARAMETERS]),
        )
        blocks |= {str(digest): reads for digest, reads in session.execute(statement).all()}
    return [
        dataclasses.replace(
            plain(StageResult, row), reads=read_blocks.join_blocks(row.reads, blocks)
        )
        for row in rows
    ]


def _fingerprint(entry: AuditEntry) -> str:
    return hashlib.sha256(to_json(vars(entry), sort=True).encode()).hexdigest()[:16]
