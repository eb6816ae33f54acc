"""Record what nodes and the judge say of a release: windows, evidence, guards, beats; freezes.

None of it is a decision, except a freeze, and none raises a generation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from include.records import audit
from include.records.audit import AuditEntry, with_once
from include.records.database import Database
from include.records.evidence_schema import ProbationRow, ReleaseEvidenceRow
from include.records.rows import (
    database_now,
    dialect_insert,
    insert_missing,
    locked,
    plain,
    write_all_over,
    write_over,
)
from include.records.schema import (
    FreezeRow,
    ReleaseBeatRow,
    ReleaseGuardRow,
    ReleaseRow,
    ReleaseWindowRow,
    RouteRow,
)


@dataclass(frozen=True)
class Window:
    """What a minute of a step brought on one start of a node (`include.predictions.window_counts`).

    `arm` is the one that was assigned, `answering` the one that answered; of mirrored requests the
    arm is shadow. `minute` is of the epoch. `closed`: that start of the node has ended in order.
    """

    use_case: str
    release_id: str
    step: int
    arm: str
    answering: str
    node: str
    boot: str
    minute: int
    counts: dict[str, Any]
    closed: bool = False


@dataclass(frozen=True)
class Beat:
    """A judge's sign of life: it goes on for `seconds`. The number rises over all releases."""

    use_case: str
    release_id: str
    beat: int
    seconds: float
    at: datetime


@dataclass(frozen=True)
class Guard:
    """A node that sends the traffic of a release home by itself, until the release has ended."""

    use_case: str
    release_id: str
    node: str
    reason: str
    boot: str
    at: datetime


@dataclass(frozen=True)
class Gathered:
    """What was found of a release beside its windows, in one of its steps.

    `metric` is whose evidence it is; of one `source` the newest finding counts.
    """

    use_case: str
    release_id: str
    step: int
    metric: str
    source: str
    content: dict[str, Any]
    at: datetime


@dataclass(frozen=True)
class Freeze:
    """Until when no release of a use case starts, and who said so."""

    use_case: str
    until: datetime
    actor: str
    reason: str
    at: datetime


class ReleaseKey(Protocol):
    """What names a release and the step that it is in."""

    @property
    def use_case(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def step(self) -> int: ...


class ReleaseReports:
    """What is said of the releases of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> datetime:
        """Return the time by the database's clock, which all instants of releases are by."""
        return self._database.read(database_now)

    def put_windows(self, windows: Sequence[Window]) -> None:
        """Record windows; one that is there already is written over: each is a whole minute."""

        def work(session: Session) -> None:
            now = database_now(session)
            rows = [{**vars(window), "at": now} for window in windows]
            write_all_over(session, ReleaseWindowRow, rows)

        self._database.write(work)

    def windows(self, use_case: str, release_id: str, *, step: int | None = None) -> list[Window]:
        """Return the windows of a release, or of one of its steps, by minute."""
        rows = select(ReleaseWindowRow).where(
            ReleaseWindowRow.use_case == use_case, ReleaseWindowRow.release_id == release_id
        )
        if step is not None:
            rows = rows.where(ReleaseWindowRow.step == step)
        # The minute first; of one minute in an order that is the same on every database.
        return self._database.read(
            lambda session: sorted(
                (plain(Window, row) for row in session.scalars(rows)),
                key=lambda one: (one.minute, one.step, one.arm, one.answering, one.node, one.boot),
            )
        )

    def finished(self, use_case: str, before: datetime) -> dict[str, int]:
        """Return how many windows there are of each release that ended before then.

        Not of one whose model is on probation, which is judged by it. Also of one that a reset has
        removed, of which a node went on to report for a while.
        """
        needed = select(ReleaseRow.id).where(
            ReleaseRow.use_case == use_case,
            ReleaseRow.ended_at.is_(None) | (ReleaseRow.ended_at >= before),
        )
        on_probation = select(ProbationRow.release_id).where(
            ProbationRow.use_case == use_case, ProbationRow.ended_at.is_(None)
        )
        counted = (
            select(ReleaseWindowRow.release_id, func.count())
            .where(
                ReleaseWindowRow.use_case == use_case,
                ReleaseWindowRow.release_id.not_in(needed),
                ReleaseWindowRow.release_id.not_in(on_probation),
            )
            .group_by(ReleaseWindowRow.release_id)
            .having(func.max(ReleaseWindowRow.at) < before)
            .order_by(ReleaseWindowRow.release_id)
        )
        return self._database.read(lambda session: dict(session.execute(counted).tuples().all()))

    def remove_windows(self, use_case: str, release_id: str) -> None:
        """Remove the windows of a release with all evidence; its verdicts stay with it."""

        def work(session: Session) -> None:
            for table in (ReleaseWindowRow, ReleaseEvidenceRow, ReleaseGuardRow):
                of = (table.use_case == use_case) & (table.release_id == release_id)
                session.execute(delete(table).where(of))

        self._database.write(work)

    def put_gathered(
        self, release: ReleaseKey, metric: str, source: str, content: dict[str, Any]
    ) -> None:
        """Record what was found in the step that a release is in, over what was found before."""

        def work(session: Session) -> None:
            write_over(
                session,
                ReleaseEvidenceRow,
                use_case=release.use_case,
                release_id=release.id,
                step=release.step,
                metric=metric,
                source=source,
                content=content,
                at=database_now(session),
            )

        self._database.write(work)

    def gathered(self, use_case: str, release_id: str) -> list[Gathered]:
        """Return what was found of a release beside its windows, the newest last."""
        rows = select(ReleaseEvidenceRow).where(
            ReleaseEvidenceRow.use_case == use_case, ReleaseEvidenceRow.release_id == release_id
        )
        return self._database.read(
            lambda session: sorted(
                (plain(Gathered, row) for row in session.scalars(rows)),
                key=lambda one: (one.at, one.step, one.metric, one.source),
            )
        )

    def latch(self, use_case: str, release_id: str, node: str, boot: str, reason: str) -> None:
        """Record that a node's own guard holds a release; the first reason stays."""
        self._database.write(
            lambda session: insert_missing(
                session,
                ReleaseGuardRow,
                use_case=use_case,
                release_id=release_id,
                node=node,
                boot=boot,
                reason=reason,
                at=database_now(session),
            )
        )

    def guards(self, use_case: str, release_id: str) -> list[Guard]:
        """Return which nodes hold a release, by name."""
        rows = select(ReleaseGuardRow).where(
            ReleaseGuardRow.use_case == use_case, ReleaseGuardRow.release_id == release_id
        )
        order = rows.order_by(ReleaseGuardRow.node)
        return self._database.read(
            lambda session: [plain(Guard, row) for row in session.scalars(order)]
        )

    def beat(self, use_case: str, release_id: str, seconds: float) -> int:
        """Record the judge's next sign of life and return its number."""

        def work(session: Session) -> int:
            said = {"release_id": release_id, "seconds": seconds, "at": database_now(session)}
            insert = dialect_insert(session, ReleaseBeatRow).values(
                use_case=use_case, beat=1, **said
            )
            statement = insert.on_conflict_do_update(
                index_elements=["use_case"], set_={**said, "beat": ReleaseBeatRow.beat + 1}
            )
            return int(session.execute(statement.returning(ReleaseBeatRow.beat)).scalar_one())

        return self._database.write(work)

    def last_beat(self, use_case: str) -> Beat | None:
        """Return the judge's last sign of life, of whichever release it was."""
        row = self._database.read(lambda session: session.get(ReleaseBeatRow, use_case))
        return None if row is None else plain(Beat, row)

    def freeze(self, use_case: str, until: datetime, entry: AuditEntry) -> Freeze:
        """Let no release start until then; the entry's details have the reason."""
        entry = with_once(entry)

        def work(session: Session) -> Freeze:
            locked(session, RouteRow, use_case)  # a request that is on its way comes before it
            made = Freeze(
                use_case,
                until,
                entry.actor,
                str(entry.details.get("reason", "")),
                database_now(session),
            )
            if entry.once is None or not audit.is_recorded(session, entry.once):
                write_over(session, FreezeRow, **vars(made))
                details = {**entry.details, "until": until}
                audit.append(session, dataclasses.replace(entry, details=details))
            return plain(Freeze, session.get_one(FreezeRow, use_case))

        return self._database.write(work)

    def thaw(self, use_case: str, entry: AuditEntry) -> bool:
        """Let releases start again; return whether a freeze was there, else nothing is recorded."""
        entry = with_once(entry)

        def work(session: Session) -> bool:
            if entry.once is not None and audit.is_recorded(session, entry.once):
                return True
            of = FreezeRow.use_case == use_case
            gone = session.scalars(delete(FreezeRow).where(of).returning(FreezeRow.until)).all()
            if gone:
                details = {**entry.details, "until": gone[0]}
                audit.append(session, dataclasses.replace(entry, details=details))
            return bool(gone)

        return self._database.write(work)

    def frozen(self, use_case: str) -> Freeze | None:
        """Return the freeze of a use case, unless it is over."""
        return self._database.read(lambda session: read_freeze(session, use_case))


def read_freeze(session: Session, use_case: str) -> Freeze | None:
    """Return the freeze of a use case, unless it is over by the database's clock."""
    row = session.get(FreezeRow, use_case)
    over = row is None or row.until <= database_now(session)
    return None if over else plain(Freeze, row)
