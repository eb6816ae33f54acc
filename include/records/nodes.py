"""Record what the serving nodes report: how far each is with the model of each role.

Reports are believed until they expire, by the database's clock: neither the clocks of nodes nor
those of whoever reads are compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from include.records.database import Database
from include.records.schema import ObservationRow

EXPIRES_SECONDS = 60.0  # a node gives a sign of life every 20 seconds
KEPT = timedelta(days=1)  # for people: which nodes there were


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

        What gave no sign for a day is removed: in some places every start is a node of a new name.
        """

        def work(session: Session) -> None:
            now = _now(session)
            session.execute(
                delete(ObservationRow).where(
                    ((ObservationRow.use_case == use_case) & (ObservationRow.node == node))
                    | (ObservationRow.expires < now - KEPT)
                )
            )
            expires = now + timedelta(seconds=expires_seconds)
            for one in roles:
                session.add(
                    ObservationRow(
                        use_case=use_case,
                        node=node,
                        boot=boot,
                        generation=generation,
                        at=now,
                        expires=expires,
                        **vars(one),
                    )
                )

        self._database.write(work)

    def stopped(self, node: str, boot: str) -> None:
        """Record that a node serves no more: its reports are not believed any longer."""

        def work(session: Session) -> None:
            session.execute(
                update(ObservationRow)
                .where(ObservationRow.node == node, ObservationRow.boot == boot)
                .values(state="stopped", expires=_now(session))
            )

        self._database.write(work)

    def of(self, use_case: str) -> list[Observation]:
        """Return the last report of every node, by node and role."""

        def work(session: Session) -> list[Observation]:
            now = _now(session)
            rows = select(ObservationRow).where(ObservationRow.use_case == use_case)
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


def _now(session: Session) -> datetime:
    """Return the time by the database's clock; SQLite's is that of this very machine."""
    if session.get_bind().dialect.name == "postgresql":
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)
    seconds = session.execute(text("SELECT (julianday('now') - 2440587.5) * 86400.0")).scalar_one()
    return datetime.fromtimestamp(float(seconds), tz=UTC)
