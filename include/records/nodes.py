"""Record what the serving nodes report: how far each is with the model of each role.

Reports are believed until they expire, by the database's clock: neither the clocks of nodes nor
those of whoever reads are compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from include.records.database import Database
from include.records.rows import database_now, write_over
from include.records.schema import ObservationRow

EXPIRES_SECONDS = 60.0  # a node gives a sign of life every 20 seconds
KEPT = timedelta(days=1)  # for people: which nodes there were
REPLACED = "replaced"  # the state of a report that its node, or a later boot of it, took back


@dataclass(frozen=True)
class RoleReport:
    """How far a node is with the model of one role.

    States are loading, ready (in memory, and tried), serving (the champion that answers), refused
    (for good) and could_not (tried again in `next_try` seconds).
    """

    role: str
    version: int
    digest: str
    state: str
    reason: str = ""
    next_try: float = 0.0


@dataclass(frozen=True)
class Observation:
    """A report of a node of one role; `living` says that it is still believed."""

    use_case: str
    node: str
    boot: str
    role: str
    version: int
    digest: str
    state: str
    reason: str
    next_try: float
    generation: int
    at: datetime
    living: bool


class Nodes:
    """The reports of the serving nodes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(
        self,
        use_case: str,
        node: str,
        boot: str,
        *,
        generation: int,
        roles: Sequence[RoleReport],
        expires_seconds: float = EXPIRES_SECONDS,
    ) -> None:
        """Record what a node says of a use case; replaces all that it, or an earlier boot, said.

        No row is removed: the role of a node may not. `forget_silent` does that.
        """

        def work(session: Session) -> None:
            now = database_now(session)
            session.execute(
                update(ObservationRow)
                .where(
                    ObservationRow.use_case == use_case,
                    ObservationRow.node == node,
                    ObservationRow.state != REPLACED,
                    (ObservationRow.boot != boot)
                    | ObservationRow.role.not_in([one.role for one in roles]),
                )
                .values(state=REPLACED, expires=now)
            )
            expires = now + timedelta(seconds=expires_seconds)
            for one in roles:
                write_over(
                    session,
                    ObservationRow,
                    use_case=use_case,
                    node=node,
                    boot=boot,
                    generation=generation,
                    at=now,
                    expires=expires,
                    **vars(one),
                )

        self._database.write(work)

    def forget_silent(self) -> int:
        """Remove what gave no sign for a day, and return how many rows that were.

        In some places every start is a node of a new name.
        """

        def work(session: Session) -> int:
            silent = ObservationRow.expires < database_now(session) - KEPT
            rows = session.scalars(
                delete(ObservationRow).where(silent).returning(ObservationRow.node)
            )
            return len(rows.all())

        return self._database.write(work)

    def stopped(self, node: str, boot: str) -> None:
        """Record that a node serves no more: its reports are not believed any longer."""

        def work(session: Session) -> None:
            session.execute(
                update(ObservationRow)
                .where(
                    ObservationRow.node == node,
                    ObservationRow.boot == boot,
                    ObservationRow.state != REPLACED,
                )
                .values(state="stopped", expires=database_now(session))
            )

        self._database.write(work)

    def of(self, use_case: str) -> list[Observation]:
        """Return the last report of every node, by node and role."""

        def work(session: Session) -> list[Observation]:
            now = database_now(session)
            rows = select(ObservationRow).where(
                ObservationRow.use_case == use_case, ObservationRow.state != REPLACED
            )
            order = rows.order_by(ObservationRow.node, ObservationRow.role)
            return [
                Observation(
                    **{
                        name: getattr(row, name)
                        for name in Observation.__dataclass_fields__
                        if name != "living"
                    },
                    living=row.state != "stopped" and row.expires > now,
                )
                for row in session.scalars(order)
            ]

        return self._database.read(work)
