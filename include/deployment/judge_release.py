"""Judge a release once: look at the evidence, make the transition, give the judge's sign of life.

The decision itself is pure (`steps`); here its inputs are read and what it says is done, by
compare-and-set. Whoever waits for a release calls `turn` every few seconds, several at once do no
harm: of two decisions on one state of the release the second is refused.

The sign of life is what nodes keep a challenger's share for, so it is given last: whoever cannot
judge gives none. Where none was given for longer than they wait, they have sent all traffic home:
within `release.resume` the step begins anew, later the release is aborted. How long that was is
told by the database's clock alone.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from include.config import settings as environment
from include.config.settings import Settings
from include.deployment.changes_beside import changes_beside
from include.deployment.decision import Decision
from include.deployment.gathered import read_offline
from include.deployment.judged_moves import (
    ACTOR,
    ask_person,
    carry_out,
    entry_of,
    unless_moved_on,
)
from include.deployment.loadable import unless_refused
from include.deployment.metric_verdicts import Offline
from include.deployment.release_plan import ReleasePlan
from include.deployment.release_state import State, describe_state, state_of
from include.deployment.releasing import is_paused
from include.deployment.steps import judge
from include.deployment.watched_windows import watched_windows
from include.errors import Conflict, EvergreenError
from include.pipeline.task_records import task_records
from include.records.records import Records, Release

log = logging.getLogger(__name__)

BEATS = 3  # signs of life in the time that a node waits for one
JUDGED = ("running", "watched")
GOES_HOME = ("roll_back", "abort", "suspend")


def turn(
    settings: Settings, use_case: str, release_id: str, now: datetime | None = None
) -> State | None:
    """Judge a release once and return how far it is; None where it is not on record.

    `now` (None: the time by the database's clock) is what the release's own times are compared
    with.
    """
    records = task_records(settings)
    release = records.releases.get(use_case, release_id)
    if release is None:
        return None
    decision = None
    if release.state in JUDGED:
        decision = take_turn(settings, records, release, now or records.releases.now())
        release = records.releases.get(use_case, release_id) or release
    return state_of(release, decision)


def step_over(
    use_case: str, key: str, step: int | None = None, *, last: bool = False
) -> State | None:
    """Judge the release of a partition, for the deferred wait; answer once its step is over.

    `step` None is the watch after the promotion. The last step is over when no step is left: that
    of the release's plan, and the `last` that has a task, where the plan has more.
    """
    from include.deployment.release_alerts import courier

    settings = environment.settings()
    try:
        release = release_of_partition(task_records(settings), use_case, key)
        state = None if release is None else turn(settings, use_case, release.id)
        courier.deliver_soon(settings, use_case, actor=ACTOR)
    except (EvergreenError, SQLAlchemyError, OSError) as error:
        # Without records there is no judge: nodes send the traffic home, and it is taken up again.
        log.warning("%s %s: the release cannot be judged now: %s", use_case, key, error)
        return None
    if release is None or state is None:
        return {"state": "none", "reason": f"no release of {key} is on record"}
    before = (release.state, release.step, *(last["word"] for last in release.verdicts[-1:]))
    if before == (state["state"], state["step"], state["word"]):
        log.info("%s: %s", state["word"], state["reason"])  # hundreds a day: no table each
    else:
        log.info("%s", describe_state(state))
    if state["state"] == "watched":
        return None if step is None else state
    if state["state"] != "running":
        return state
    is_last = last or (step is not None and step + 1 == state["steps"])
    return state if step is not None and state["step"] > step and not is_last else None


def unpaused(use_case: str, key: str) -> State | None:
    """Answer, for the deferred wait, once a partition's release is not paused before its steps.

    Records that are away are asked again.
    """
    try:
        release = release_of_partition(task_records(environment.settings()), use_case, key)
    except (EvergreenError, SQLAlchemyError, OSError) as error:
        log.warning("%s %s: the release cannot be looked at now: %s", use_case, key, error)
        return None
    if release is None:
        return {"state": "none", "reason": f"no release of {key} is on record"}
    return None if is_paused(release) else state_of(release, None)


def take_turn(
    settings: Settings, records: Records, release: Release, now: datetime
) -> Decision | None:
    """Judge a release that is in its steps, or watched, and do what the judgement says.

    Returns the decision; None where another hand was faster, or its judge was away.
    """
    plan = ReleasePlan.read(release.id, release.plan)
    try:
        gap = 0.0
        if release.state == "running":
            silence = _silence(records, release, now)
            if silence > plan.resume:
                _end_silent(records, release, plan, silence, now)
                return None
            # One that was taken up, or sent on, since the last sign is not taken up for it again.
            gap = min(silence, (now - release.entered_at).total_seconds())
        if gap > plan.beat:
            _decide(settings, records, release, plan, gap, now)  # who cannot takes nothing up
            _take_up(records, release, gap, now)
        release = records.releases.get(release.use_case, release.id) or release
        if release.state not in JUDGED:
            return None
        decision = _decide(settings, records, release, plan, gap, now)
        gap = gap if gap > plan.beat else 0.0
        try:
            carry_out(settings, records, release, decision, now, gap)
        except Conflict as error:
            decision = unless_moved_on(records, release, decision, error, now)
            carry_out(settings, records, release, decision, now, gap)
        if decision.asks:
            ask_person(records, release, decision, now)
        # Of one that has ended a sign would hide that of the next one, whose row it is too.
        after = records.releases.get(release.use_case, release.id)
        if after is not None and after.state == "running":
            records.releases.beat(release.use_case, release.id, plan.beat)
    except Conflict as error:
        log.info("%s: %s", release.use_case, error)  # the next turn sees what there is then
        return None
    return decision


def _decide(
    settings: Settings,
    records: Records,
    release: Release,
    plan: ReleasePlan,
    gap: float,
    now: datetime,
) -> Decision:
    """Return the decision with all that it may come of; nothing is written."""
    decision = _judge(records, release, plan, gap, now)
    if release.state == "running":
        decision = unless_refused(settings, records, release, decision, now)
    if decision.asks or decision.action in GOES_HOME:
        decision = replace(
            decision, causes=[*decision.causes, *changes_beside(records, release, now)]
        )
    return decision


def end_abandoned(records: Records, release: Release, now: datetime) -> None:
    """Abort a release that nobody has driven for longer than `release.resume`.

    For the candidate after it, which would else wait for its end until a person heals it. One that
    a person has paused before its first step is that person's to end.
    """
    if is_paused(release):
        return
    plan = ReleasePlan.read(release.id, release.plan)
    if release.state == "trying":
        gap, what = (now - release.entered_at).total_seconds(), "no node has tried it"
    else:
        gap, what = _silence(records, release, now), "judge away"
    if gap <= plan.resume:
        return
    try:
        _end_silent(records, release, plan, gap, now, what=what)
    except Conflict as error:
        log.info("%s: %s", release.use_case, error)  # somebody drives it after all


def _judge(
    records: Records, release: Release, plan: ReleasePlan, gap: float, now: datetime
) -> Decision:
    """Return the decision; evidence that cannot be read is a hold, which the deadline ends."""
    try:
        if release.state == "watched":
            windows, beside = watched_windows(records, release, plan)
        else:
            windows = records.releases.windows(release.use_case, release.id, step=release.step)
            beside = []
        return judge(
            release,
            plan,
            windows,
            records.nodes.of(release.use_case),
            records.releases.guards(release.use_case, release.id),
            gap,
            now,
            offline=_offline(records, release),
            beside=beside,
        )
    except ValueError as error:
        reason = f"what nodes have counted cannot be read: {error}"
        in_step = release.state == "running"
        seconds = plan.step(release.step).deadline if in_step else plan.watch
        is_late = in_step and now >= release.entered_at + timedelta(seconds=seconds)
        return Decision("hold", "abort" if is_late else "stay", reason, asks_about=("unreadable",))


def _offline(records: Records, release: Release) -> Offline | None:
    """Return what was gathered beside the windows; of a champion that is watched nothing counts."""
    if release.state != "running":
        return None
    return read_offline(records.releases.gathered(release.use_case, release.id))


def release_of_partition(records: Records, use_case: str, key: str) -> Release | None:
    """Return the newest release of a partition."""
    found = records.releases.latest(use_case)
    return next((release for release in found if release.partition == key), None)


def _silence(records: Records, release: Release, now: datetime) -> float:
    """Return for how many seconds nobody has judged a release, whatever became of its step."""
    last = records.releases.last_beat(release.use_case)
    since = last.at if last is not None and last.release_id == release.id else release.entered_at
    return (now - since).total_seconds()


def _end_silent(
    records: Records,
    release: Release,
    plan: ReleasePlan,
    gap: float,
    now: datetime,
    *,
    what: str = "judge away",
) -> None:
    """Abort a release that nobody has driven for longer than `release.resume`.

    Raises:
        Conflict: somebody drives it after all.
    """
    reason = f"{what} for {gap:.0f} s, longer than release.resume ({plan.resume:.0f} s)"
    entry = entry_of(release, "aborted", now, {"gap_seconds": round(gap, 1)})
    records.releases.abort(release, reason, entry)


def _take_up(records: Records, release: Release, gap: float, now: datetime) -> None:
    """Begin the step anew of a release whose judge was away."""
    if release.suspended:  # of a common cause, which may not have passed: it is judged as such
        return
    reason = f"nobody judged it for {gap:.0f} s"
    details = {"gap_seconds": round(gap, 1), "reason": reason}
    release = records.releases.suspend(release, entry_of(release, "suspended", now, details))
    records.releases.resume(release, gap, entry_of(release, "resumed", now, details))
    log.warning("%s: %s; its step begins anew", release.use_case, reason)
