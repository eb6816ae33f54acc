"""Record what every partition is meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import ConfigError
from include.records import audit
from include.records.audit import AuditEntry
from include.records.database import Database, rows_of_use_case
from include.records.models import Mode
from include.records.rows import insert_all_missing, insert_missing, locked, plain
from include.records.schema import PartitionRow

Target = Literal["data", "judged", "deployed"]
MODES: tuple[str, ...] = get_args(Mode)
TARGETS: tuple[str, ...] = get_args(Target)


@dataclass(frozen=True)
class Partition:
    """What a partition is meant for; mode and target only rise.

    `actor` and `at` are those of the last rise.
    """

    use_case: str
    key: str
    mode: Mode
    target: Target
    actor: str
    at: datetime


class Partitions:
    """The partitions of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def raise_to(
        self,
        use_case: str,
        key: str,
        *,
        mode: Mode,
        target: Target,
        actor: str,
        at: datetime,
        session: Session | None = None,
    ) -> Partition:
        """Raise mode and target of a partition to at least these; a change is audited.

        Raises:
            ConfigError: there is no such mode or target.
        """

        def work(open_session: Session) -> Partition:
            values = {"mode": mode, "target": target, "actor": actor, "at": at}
            created = insert_missing(
                open_session, PartitionRow, use_case=use_case, key=key, **values
            )
            row = locked(open_session, PartitionRow, use_case, key)
            assert row is not None
            before = None if created else [row.mode, row.target]
            row.mode, row.target = (
                max(row.mode, mode, key=MODES.index),
                max(row.target, target, key=TARGETS.index),
            )
            if before != (after := [row.mode, row.target]):
                row.actor, row.at = actor, at
                audit.append(
                    open_session,
                    AuditEntry(
                        "partition.raised",
                        use_case,
                        key,
                        actor,
                        {"before": before, "after": after},
                        at,
                    ),
                )
                open_session.flush()
            return plain(Partition, row)

        if mode not in MODES or target not in TARGETS:
            raise ConfigError(
                f"partition {key}: mode is one of {MODES} and target of {TARGETS}, not {mode!r} "
                f"and {target!r}"
            )
        return self._database.write(work, session)

    def add(
        self,
        use_case: str,
        keys: Sequence[str],
        *,
        mode: Mode,
        target: Target,
        actor: str,
        at: datetime,
    ) -> None:
        """Record partitions that are not on record yet, in one transaction; each is audited.

        Those that are on record stay as they are.
        """

        def work(session: Session) -> None:
            rows = [
                {
                    "use_case": use_case,
                    "key": key,
                    "mode": mode,
                    "target": target,
                    "actor": actor,
                    "at": at,
                }
                for key in sorted(set(keys))
            ]
            before = set(
                session.scalars(select(PartitionRow.key).where(PartitionRow.use_case == use_case))
            )
            # One that somebody else records meanwhile is named twice in the audit log, and is one.
            new = [row for row in rows if row["key"] not in before]
            insert_all_missing(session, PartitionRow, new)
            for row in new:
                details = {"before": None, "after": [mode, target]}
                audit.append(
                    session,
                    AuditEntry("partition.raised", use_case, str(row["key"]), actor, details, at),
                )

        self._database.write(work)

    def get(self, use_case: str, key: str) -> Partition | None:
        """Return what a partition is meant for, or None if nobody asked for it yet."""
        row = self._database.read(lambda session: session.get(PartitionRow, (use_case, key)))
        return None if row is None else plain(Partition, row)

    def of(self, use_case: str) -> list[Partition]:
        """Return the partitions of a use case, by key."""
        return rows_of_use_case(self._database, Partition, PartitionRow, use_case, PartitionRow.key)
