"""Read and begin rows of probation inside a transaction, which has the lock of the routing row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.records.evidence_schema import ProbationRow
from include.records.schema import ReleaseRow

ProbationState = Literal[
    "maturing", "due", "regressed", "passed", "not_good", "rolled_back", "lapsed"
]
PROBATION_STATES: tuple[str, ...] = get_args(ProbationState)
OPEN = ("maturing", "due", "regressed")


@dataclass(frozen=True)
class Probation:
    """What is still to come of a promoted version: how those fared who met it in its release.

    It is *maturing* until the outcomes of that cohort are mature, then *due* to be judged. Judged,
    it has *passed*, or *regressed* while it still serves (a person is asked to roll it back), or is
    *not good*: no rollback goes to it and no candidate is judged against it. What was *rolled back*
    meanwhile needs no judgement; what nobody judged has *lapsed*.
    """

    use_case: str
    release_id: str
    version: int
    digest: str
    opponent: int
    state: ProbationState
    reason: str
    began_at: datetime
    matures_at: datetime
    ended_at: datetime | None


def begin(session: Session, release: ReleaseRow) -> None:
    """Put the model of a release on probation, which has gone through steps and is champion now.

    Without a champion before there was nobody to compare with; a plan of a version before does not
    say when outcomes are mature.
    """
    delay = release.plan.get("probation")
    if release.champion is None or delay is None:
        return
    session.add(
        ProbationRow(
            use_case=release.use_case,
            release_id=release.id,
            version=release.challenger,
            digest=release.challenger_digest,
            opponent=release.champion,
            state="maturing",
            reason="",
            began_at=release.entered_at,
            matures_at=release.entered_at + timedelta(seconds=float(delay)),
            ended_at=None,
        )
    )
    session.flush()


def is_found(session: Session, use_case: str, digest: str, *states: str) -> bool:
    """Tell whether the newest probation of a model is in one of the states."""
    rows = select(ProbationRow.state).where(
        ProbationRow.use_case == use_case, ProbationRow.digest == digest
    )
    newest = session.scalars(rows.order_by(ProbationRow.began_at.desc())).first()
    return newest in states


def open_rows(session: Session, use_case: str) -> list[ProbationRow]:
    """Return the probations that have not ended, the oldest first."""
    rows = select(ProbationRow).where(
        ProbationRow.use_case == use_case, ProbationRow.state.in_(OPEN)
    )
    return list(session.scalars(rows.order_by(ProbationRow.began_at, ProbationRow.release_id)))
