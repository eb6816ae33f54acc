"""Open the records: one SQL database with all that is meant, found, served and decided.

It holds what every partition is meant for, what every stage came to, who is at work, which model
serves, and the audit log. The database is SQLite or PostgreSQL, by URL; a small class an aggregate.
Each method of theirs is one transaction, and recognises its own write when it is called again after
a lost answer; `session=` puts it into a transaction of the caller's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from include.records import audit, migrate
from include.records.audit import AuditEntry, AuditFault, AuditLog, AuditRecord
from include.records.database import Database
from include.records.epochs import Epochs
from include.records.evidence_schema import ProbationRow, ReleaseEvidenceRow
from include.records.feature_sets import FeatureSetRecord, FeatureSets
from include.records.lease_register import Holder, LeaseRegister
from include.records.leases import Lease
from include.records.migrate import Migrated
from include.records.models import Mode, Model, Models
from include.records.nodes import Nodes, Observation, RoleReport
from include.records.opponents import Opponent, Opponents
from include.records.partitions import Partition, Partitions, Target
from include.records.probation_rows import Probation
from include.records.probations import Probations
from include.records.release_reports import Beat, Freeze, Guard, Window
from include.records.release_rows import Release
from include.records.release_rules import UNSET
from include.records.releases import Releases
from include.records.results import Results, StageResult
from include.records.roles import Roles
from include.records.route_changes import Route
from include.records.routes import Routes
from include.records.schema import (
    FeatureSetRow,
    FreezeRow,
    ModelRow,
    ObservationRow,
    ObservedRow,
    OnlineRow,
    OpponentRow,
    PartitionRow,
    ReadsRow,
    RedrivenRow,
    ReleaseBeatRow,
    ReleaseGuardRow,
    ReleaseRow,
    ReleaseWindowRow,
    ResultRow,
    RouteRow,
)
from include.records.serving_rows import RESET, ServingRow, ServingRows, read_serving_rows

T = TypeVar("T")

__all__ = [
    "UNSET",
    "AuditEntry",
    "AuditFault",
    "AuditRecord",
    "Beat",
    "FeatureSetRecord",
    "Freeze",
    "Guard",
    "Holder",
    "Lease",
    "Migrated",
    "Mode",
    "Model",
    "Observation",
    "Opponent",
    "Partition",
    "Probation",
    "Records",
    "Release",
    "RoleReport",
    "Roles",
    "Route",
    "ServingRow",
    "ServingRows",
    "StageResult",
    "Target",
    "Window",
]


class Records:
    """The records database of one installation, by aggregate."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.partitions, self.results = Partitions(database), Results(database)
        self.models, self.routes, self.opponents = (
            Models(database),
            Routes(database),
            Opponents(database),
        )
        self.feature_sets, self.nodes = FeatureSets(database), Nodes(database)
        self.leases, self.audit = LeaseRegister(database), AuditLog(database)
        self.epochs, self.releases = Epochs(database), Releases(database)
        self.probations = Probations(database)

    def __repr__(self) -> str:
        return f"<Records {self.database.name}>"

    @classmethod
    def open(cls, url: str, *, patience: float = 10.0, pool: int = 8) -> Records:
        """Return the records at a SQLAlchemy URL; connects on first use, changes no table.

        A connection that is lost is tried again for `patience` seconds; a process has `pool` of
        them to a server at most.

        Raises:
            ConfigError: the URL is wrong, or of a database that is not supported.
        """
        return cls(_database(url, patience, pool))

    def migrate(self, *, roles: Roles | None = None) -> Migrated:
        """Bring the tables to this version; several processes may call it at once.

        With `roles`, what each may do is written too.
        """
        return migrate.upgrade(self.database, roles=roles)

    def serving_rows(
        self, known: Collection[str] = (), since: int = 0, epoch: int | None = None
    ) -> ServingRows:
        """Return what the nodes follow; of the `known` names, which were reset meanwhile.

        `since` is the `head` of the rows that were read before, `epoch` is theirs (None: of now).
        """
        return read_serving_rows(self.database, known, since, epoch)

    def newest_reset(self, use_case: str) -> datetime | None:
        """Return when a use case was reset last, or None."""
        entries = self.audit.entries(use_case, action=RESET, limit=1)
        return entries[0].at if entries else None

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        self.database.close()

    def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one write transaction, again where the connection is lost meanwhile.

        It must recognise its own write: a commit whose answer is lost may have happened.
        """
        return self.database.write(work)

    def transaction(self) -> AbstractContextManager[Session]:
        """Open one write transaction; audit entries appended in it are written as it commits."""
        return self.database.transaction()

    def forget(self, use_case: str, *, entry: AuditEntry | None = None) -> dict[str, int]:
        """Return the number of rows of a use case by table; with an audit entry, remove them.

        The audit log stays, and so do the leases, whose tokens must go on rising.
        """
        tables: tuple[type[Any], ...] = (
            PartitionRow,
            ResultRow,
            ReadsRow,
            ModelRow,
            RouteRow,
            ReleaseRow,
            ReleaseBeatRow,
            ReleaseEvidenceRow,
            ReleaseGuardRow,
            ReleaseWindowRow,
            ProbationRow,
            FreezeRow,
            ObservationRow,
            ObservedRow,
            FeatureSetRow,
            OnlineRow,
            OpponentRow,
            RedrivenRow,
        )

        def work(session: Session) -> dict[str, int]:
            counts = {}
            for table in tables:
                of_use_case = table.use_case == use_case
                counts[table.__tablename__] = (
                    session.scalar(select(func.count()).select_from(table).where(of_use_case)) or 0
                )
                if entry is not None:
                    session.execute(delete(table).where(of_use_case))
            if entry is not None:
                audit.append(
                    session, dataclasses.replace(entry, details={**entry.details, "rows": counts})
                )
            return counts

        return self.database.read(work) if entry is None else self.database.write(work)


@lru_cache(maxsize=8)
def _database(url: str, patience: float, pool: int) -> Database:
    """Return one pool an address, however often it is opened in this process."""
    return Database(url, patience=patience, pool=pool, seal=audit.seal)
