"""Read and end rows of releases inside a transaction, which has the lock of the routing row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import EvergreenError
from include.records.columns import json_digest
from include.records.rows import database_now, locked
from include.records.schema import ReleaseRow, RouteRow

ReleaseState = Literal[
    "waiting", "trying", "running", "watched", "promoted", "rolled_back", "aborted", "superseded"
]
RELEASE_STATES: tuple[str, ...] = get_args(ReleaseState)
UNDER_WAY = ("trying", "running")  # at most one of a use case
LIVING = (*UNDER_WAY, "watched")  # what a routing row may name
OPEN = ("waiting", *LIVING)  # not ended
KEPT_VERDICTS = 100  # of a release; the audit log has each first one


@dataclass(frozen=True)
class Release:
    """A release of a use case.

    States are waiting (queued behind another), trying (nodes try the challenger), running (in its
    steps), watched (the challenger is champion) and the ends promoted, rolled_back, aborted and
    superseded. `step` is the index into the plan's steps; while watched it is their number.
    `champion` is who served when it was requested, `opponent_generation` that of the routing row
    when it was judged. Instants are by the database's clock.
    """

    use_case: str
    id: str
    partition: str
    challenger: int
    challenger_digest: str
    bento_digest: str | None
    signature: str | None
    champion: int | None
    opponent_generation: int
    plan: dict[str, Any]
    step: int
    state: ReleaseState
    paused: bool
    suspended: bool
    entered_at: datetime
    started_at: datetime
    ended_at: datetime | None
    verdicts: list[Any]
    reason: str
    gap_seconds: float
    rolled_back_by_itself: bool
    revision: int


def step_traffic(plan: Mapping[str, Any], step: int) -> tuple[str, int]:
    """Return mode and share, in basis points, of a step of a recorded plan.

    A step of no share is a shadow.

    Raises:
        EvergreenError: the plan has no such step, or its share is none.
    """
    steps = plan.get("steps") or []
    if not 0 <= step < len(steps):
        raise EvergreenError(f"the plan has {len(steps)} steps, no step {step}")
    share = steps[step]["share"]
    if not isinstance(share, int) or not 0 <= share <= 10_000:
        raise EvergreenError(f"step {step}: share {share!r} is none; 0 to 10000 basis points")
    return ("canary" if share else "shadow"), share


def find(session: Session, use_case: str, *states: str) -> ReleaseRow | None:
    """Return the newest release in one of the states."""
    rows = select(ReleaseRow).where(ReleaseRow.use_case == use_case, ReleaseRow.state.in_(states))
    return session.scalars(rows.order_by(ReleaseRow.started_at.desc(), ReleaseRow.id)).first()


def find_locked(session: Session, use_case: str, *states: str) -> ReleaseRow | None:
    """Return the newest release in one of the states as it is now, locked."""
    row = find(session, use_case, *states)
    return None if row is None else locked(session, ReleaseRow, use_case, row.id)


def is_named(route: RouteRow, release: ReleaseRow) -> bool:
    """Tell whether the routing row still has what the release is about.

    A node of the version before rolls back without knowing of releases.
    """
    if release.state == "watched":
        return route.champion == release.challenger
    return route.challenger == release.challenger and route.release_id == release.id


def end(
    session: Session,
    row: ReleaseRow,
    state: ReleaseState,
    reason: str,
    *,
    by_itself: bool = False,
) -> None:
    """End a release."""
    row.state, row.reason, row.ended_at = state, reason, database_now(session)
    if by_itself:
        row.rolled_back_by_itself = True
    row.revision += 1
    session.flush()


def begin_step(session: Session, row: ReleaseRow, step: int) -> dict[str, Any]:
    """Enter a step, now; return what the routing row says from now on.

    Raises:
        EvergreenError: the plan has no such step.
    """
    mode, share = step_traffic(row.plan, step)
    row.step, row.entered_at, row.suspended = step, database_now(session), False
    session.flush()
    return {"step": step, "mode": mode, "share": share, "weight": share / 100}


def add_verdict(session: Session, row: ReleaseRow, verdict: Mapping[str, Any]) -> bool:
    """Keep the last verdict of each word in a row; tell whether the word is another than before.

    `since` is when it was first said without another word in between, `at` when last.
    """
    now = database_now(session).isoformat()
    last = row.verdicts[-1] if row.verdicts else None
    same = last is not None and (last["step"], last["word"]) == (row.step, verdict["word"])
    since = last["since"] if last is not None and same else now
    told = {**verdict, "step": row.step, "since": since, "at": now}
    row.verdicts = [*(row.verdicts[:-1] if same else row.verdicts), told][-KEPT_VERDICTS:]
    session.flush()
    return not same


def is_noted(row: ReleaseRow, verdict: Mapping[str, Any]) -> bool:
    """Tell whether a verdict is the last one on record."""
    if not row.verdicts:
        return False
    last = {name: row.verdicts[-1].get(name) for name in verdict}
    return json_digest(last) == json_digest(dict(verdict))
