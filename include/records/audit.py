"""Append decisions to the audit log, whose rows each hold the hash of the row before.

Entries are appended inside the transaction of what they tell, and get their numbers when that
transaction commits, under a lock on the head row: the sequence has no gap, and the lock is held for
the shortest time and always taken last. Who can change the database can also rewrite a chain's
tail; keep `head` elsewhere and give it to `verify` as the anchor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import ConfigError
from include.records.columns import to_json, words
from include.records.database import Database
from include.records.rows import locked
from include.records.schema import AuditHead, AuditRow

GENESIS = "0" * 64
_PENDING = "audit"


@dataclass(frozen=True)
class AuditEntry:
    """What was decided, about what, by whom.

    An entry whose `once` is on record already is not written again. Who tries the same again and
    again, as the judge of a release does, names what it tries by `refused_once`: refused for the
    same reason it is on record as refused only once.
    """

    action: str
    use_case: str
    subject: str
    actor: str
    details: dict[str, Any]
    at: datetime
    once: str | None = None
    refused_once: str | None = None


@dataclass(frozen=True)
class AuditRecord:
    """A row of the log."""

    sequence: int
    at: datetime
    action: str
    use_case: str
    subject: str
    actor: str
    details: dict[str, Any]
    once: str | None
    hash: str


@dataclass(frozen=True)
class AuditFault:
    """The first bad row and what is wrong with it."""

    sequence: int
    reason: str


def append(session: Session, entry: AuditEntry) -> None:
    """Add an entry to a transaction of `Records.transaction`; it is on record when that commits."""
    if entry.at.tzinfo is None:
        raise ValueError(
            f"audit entry {entry.action}: {entry.at} has no time zone; pass an aware datetime"
        )
    session.info.setdefault(_PENDING, []).append(entry)


def seal(session: Session) -> None:
    """Write the transaction's entries at the end of the chain, right before it commits.

    Called once. The head row is locked last and for the shortest time, and always after whatever
    else the transaction locks: two transactions cannot wait for each other here.
    """
    pending: Sequence[AuditEntry] = session.info.pop(_PENDING, ())
    if not pending:
        return
    session.flush()
    end = locked(session, AuditHead, 1)
    if end is None:
        raise ConfigError(
            "the audit log has lost its head row; restore the records database from a copy"
        )
    written: set[str] = set()
    for entry in pending:
        if entry.once is not None:
            if entry.once in written or is_recorded(session, entry.once):
                continue
            written.add(entry.once)
        row = AuditRow(
            sequence=end.sequence + 1,
            at=entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
            action=words(entry.action),
            use_case=words(entry.use_case),
            subject=words(entry.subject),
            actor=words(entry.actor),
            details=to_json(entry.details, sort=True),
            once=None if entry.once is None else words(entry.once),
            previous=end.hash,
        )
        row.hash = _hash(row)
        session.add(row)
        end.sequence, end.hash = row.sequence, row.hash
    session.flush()


def is_recorded(session: Session, once: str) -> bool:
    """Tell whether an entry with this `once` is on record."""
    return session.scalar(select(AuditRow.sequence).where(AuditRow.once == words(once))) is not None


def with_once(entry: AuditEntry) -> AuditEntry:
    """Return the entry with a `once`, so that a retry after a lost answer finds it on record."""
    return entry if entry.once is not None else dataclasses.replace(entry, once=uuid.uuid4().hex)


class AuditLog:
    """The audit log of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, entry: AuditEntry, *, session: Session | None = None) -> None:
        """Append one entry; with its `once` on record already, nothing happens."""
        entry = entry if session is not None else with_once(entry)
        self._database.write(lambda open_session: append(open_session, entry), session)

    def verify(self, *, anchor: tuple[int, str] | None = None) -> AuditFault | None:
        """Return the first bad row, or None if the chain is whole and still holds the anchor.

        `anchor` is an earlier `head`, kept elsewhere.
        """
        return self._database.read(lambda session: first_fault(session, anchor))

    def head(self) -> tuple[int, str]:
        """Return sequence and hash of the newest row: an anchor to keep outside this database."""
        row = self._database.read(lambda session: session.get_one(AuditHead, 1))
        return row.sequence, row.hash

    def entries(
        self,
        use_case: str | None = None,
        *,
        action: str | None = None,
        subject: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[AuditRecord]:
        """Return rows in order of their sequence; `limit` keeps the newest."""
        statement = (
            select(AuditRow)
            .where(AuditRow.sequence > after)
            .order_by(AuditRow.sequence.desc())
            .limit(limit)
        )
        for column, value in (
            (AuditRow.use_case, use_case),
            (AuditRow.action, action),
            (AuditRow.subject, subject),
        ):
            if value is not None:
                statement = statement.where(column == value)
        return self._database.read(
            lambda session: [_record(row) for row in reversed(session.scalars(statement).all())]
        )


def first_fault(session: Session, anchor: tuple[int, str] | None) -> AuditFault | None:
    """Return the first bad row of the chain, as `AuditLog.verify` does, in a session of one's own.

    It needs no right to write.
    """
    sequence, previous = 0, GENESIS
    statement = select(AuditRow).order_by(AuditRow.sequence).execution_options(yield_per=1000)
    for row in session.scalars(statement):
        if row.sequence != sequence + 1:
            return AuditFault(sequence + 1, f"is missing; the next row is {row.sequence}")
        if row.previous != previous:
            return AuditFault(
                row.sequence,
                f"does not continue row {sequence}: one of the two was changed, moved or replaced",
            )
        if _hash(row) != row.hash:
            return AuditFault(row.sequence, "was changed: its content does not have its hash")
        if anchor is not None and anchor[0] == row.sequence and anchor[1] != row.hash:
            return AuditFault(row.sequence, "is not the anchored row: the log was rewritten")
        sequence, previous = row.sequence, row.hash
        session.expunge(row)  # a long log need not fit into memory
    return _end_fault(session, sequence, previous, anchor)


def _end_fault(
    session: Session, sequence: int, last: str, anchor: tuple[int, str] | None
) -> AuditFault | None:
    end = session.get(AuditHead, 1)
    if end is None:
        return AuditFault(sequence + 1, "cannot be checked: the head row is gone")
    if end.sequence > sequence:
        return AuditFault(sequence + 1, f"is missing: the log was cut, it had {end.sequence} rows")
    if end.sequence < sequence:
        return AuditFault(end.sequence + 1, f"stands behind the head, which is row {end.sequence}")
    if end.hash != last:
        return AuditFault(max(sequence, 1), "was changed: the head has another hash")
    if anchor is not None and anchor[0] > sequence:
        return AuditFault(sequence + 1, f"is missing: the anchor is row {anchor[0]}")
    return None


def _hash(row: AuditRow) -> str:
    content = [
        row.sequence,
        row.at,
        row.action,
        row.use_case,
        row.subject,
        row.actor,
        row.details,
        row.once,
        row.previous,
    ]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _record(row: AuditRow) -> AuditRecord:
    return AuditRecord(
        sequence=row.sequence,
        at=datetime.fromisoformat(row.at),
        action=row.action,
        use_case=row.use_case,
        subject=row.subject,
        actor=row.actor,
        details=json.loads(row.details),
        once=row.once,
        hash=row.hash,
    )
