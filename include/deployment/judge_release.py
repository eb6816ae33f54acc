"""Judge a release once: give the judge's sign of life, look at the evidence, make the transition.

The decision itself is pure (`steps`); here its inputs are read and what it says is done, by
compare-and-set. Whoever waits for a release calls `turn` every few seconds, several at once do no
harm: of two decisions on one state of the release the second is refused.

The sign of life is what nodes keep a challenger's share for. Where none was given for longer than
they wait, they have sent all traffic home: within `release.resume` the step begins anew, later the
release is aborted. How long that was is told by the database's clock alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from include.config import settings as environment
from include.config.settings import Settings
from include.config.use_case_file import find
from include.deployment.changes_beside import changes_beside
from include.deployment.description import Description
from include.deployment.gathered import read_offline
from include.deployment.loadable import unless_refused
from include.deployment.metric_verdicts import Offline
from include.deployment.release_plan import ReleasePlan
from include.deployment.release_state import State, describe_state, plain_verdict, state_of
from include.deployment.rollback import ACTION as ROLLED_BACK
from include.deployment.steps import Decision, judge
from include.errors import ConfigError, Conflict, EvergreenError
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, Records, Release

log = logging.getLogger(__name__)

BEATS = 3  # signs of life in the time that a node waits for one
JUDGED = ("running", "watched")
GOES_HOME = ("roll_back", "abort", "suspend")
ACTOR = "judge"


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


def step_over(use_case: str, key: str, step: int | None = None) -> State | None:
    """Judge the release of a partition, for the deferred wait; answer once its step is over.

    `step` None is the watch after the promotion, and the last step is over when no step is left.
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
    is_last = step is not None and step + 1 == state["steps"]
    return state if step is not None and state["step"] > step and not is_last else None


def take_turn(
    settings: Settings, records: Records, release: Release, now: datetime
) -> Decision | None:
    """Judge a release that is in its steps, or watched, and do what the judgement says.

    Returns the decision; None where another hand was faster, or its judge was away.
    """
    plan = ReleasePlan.read(release.id, release.plan)
    try:
        in_step = release.state == "running"
        gap = _silence(records, release, now) if in_step else 0.0
        if gap > plan.beat and not _take_up(records, release, plan, gap, now):
            return None
        # Only now: of a judge who was killed while he took it up, the next one still sees the gap.
        if in_step and gap <= plan.resume:
            records.releases.beat(release.use_case, release.id, plan.beat)
        release = records.releases.get(release.use_case, release.id) or release
        if release.state not in JUDGED:
            return None
        decision = _judge(records, release, plan, gap, now)
        if release.state == "running":
            decision = unless_refused(settings, records, release, decision, now)
        if decision.asks or decision.action in GOES_HOME:
            decision = replace(
                decision, causes=[*decision.causes, *changes_beside(records, release, now)]
            )
        _carry_out(settings, records, release, decision, now, gap if gap > plan.beat else 0.0)
        if decision.asks:
            _ask_person(records, release, decision, now)
    except Conflict as error:
        log.info("%s: %s", release.use_case, error)  # the next turn sees what there is then
        return None
    return decision


def end_abandoned(records: Records, release: Release, now: datetime) -> None:
    """Abort a release that nobody has driven for longer than `release.resume`.

    For the candidate after it, which would else wait for its end until a person heals it.
    """
    plan = ReleasePlan.read(release.id, release.plan)
    if release.state == "trying":
        gap, what = (now - release.entered_at).total_seconds(), "no node has tried it"
    else:
        gap, what = _silence(records, release, now), "judge away"
    if gap <= plan.resume:
        return
    reason = f"{what} for {gap:.0f} s, longer than release.resume ({plan.resume:.0f} s)"
    try:
        records.releases.abort(release, reason, entry_of(release, "aborted", now))
    except Conflict as error:
        log.info("%s: %s", release.use_case, error)  # somebody drives it after all


def _judge(
    records: Records, release: Release, plan: ReleasePlan, gap: float, now: datetime
) -> Decision:
    """Return the decision; evidence that cannot be read is a hold, which the deadline ends."""
    try:
        return judge(
            release,
            plan,
            records.releases.windows(release.use_case, release.id, step=release.step),
            records.nodes.of(release.use_case),
            records.releases.guards(release.use_case, release.id),
            gap,
            now,
            offline=_offline(records, release),
        )
    except ValueError as error:
        reason = f"what nodes have counted cannot be read: {error}"
        in_step = release.state == "running"
        seconds = plan.step(release.step).deadline if in_step else plan.watch
        is_late = in_step and now >= release.entered_at + timedelta(seconds=seconds)
        return Decision("hold", "abort" if is_late else "stay", reason, asks=True)


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
    """Return for how many seconds nobody has judged a release's step."""
    last = records.releases.last_beat(release.use_case)
    since = last.at if last is not None and last.release_id == release.id else release.entered_at
    return (now - max(since, release.entered_at)).total_seconds()


def _take_up(
    records: Records, release: Release, plan: ReleasePlan, gap: float, now: datetime
) -> bool:
    """Go on with a release whose judge was away, or abort it; tell whether it goes on."""
    details: dict[str, Any] = {"gap_seconds": round(gap, 1)}
    if gap > plan.resume:
        reason = f"judge away for {gap:.0f} s, longer than release.resume ({plan.resume:.0f} s)"
        records.releases.abort(release, reason, entry_of(release, "aborted", now, details))
        return False
    if release.suspended:  # of a common cause, which may not have passed: it is judged as such
        return True
    reason = f"nobody judged it for {gap:.0f} s"
    details |= {"reason": reason}
    release = records.releases.suspend(release, entry_of(release, "suspended", now, details))
    records.releases.resume(release, gap, entry_of(release, "resumed", now, details))
    log.warning("%s: %s; its step begins anew", release.use_case, reason)
    return True


def _carry_out(
    settings: Settings,
    records: Records,
    release: Release,
    decision: Decision,
    now: datetime,
    gap: float,
) -> None:
    """Make the transition that a decision asks for; `gap` is for how long there was no judge.

    Raises:
        Conflict: the release has moved on since it was judged.
    """
    releases, verdict = records.releases, plain_verdict(decision)
    details = {"verdict": verdict}
    match decision.action:
        case "advance":
            releases.advance(release, verdict, entry_of(release, "advanced", now))
        case "promote" if release.state == "watched":
            releases.settle(release, entry_of(release, "settled", now, details))
        case "promote":
            entry = entry_of(release, "promoted", now, {"how": "all steps passed", **details})
            releases.promote(release, entry, describe_now(settings, records, release.use_case))
        case "suspend":
            releases.suspend(release, entry_of(release, "suspended", now, details))
        case "resume":
            releases.resume(release, gap, entry_of(release, "resumed", now, details))
        case "abort":
            releases.abort(release, decision.reason, entry_of(release, "aborted", now, details))
        case "roll_back":
            entry = entry_of(release, ROLLED_BACK.removeprefix("release."), now, details)
            releases.roll_back(release, decision.reason, entry, by_itself=True)
        case _:
            releases.note(release, verdict, entry_of(release, "judged", now))


def _ask_person(records: Records, release: Release, decision: Decision, now: datetime) -> None:
    """Say once a step, and once a word, that a person is to look at a release."""
    once = f"release.asks/{release.use_case}/{release.id}/{release.step}/{decision.word}"
    details = {"word": decision.word, "reason": decision.reason, "causes": list(decision.causes)}
    entry = replace(entry_of(release, "asks_a_person", now, details), once=once)
    asked = records.audit.entries(release.use_case, action=entry.action, limit=20)
    if all(row.once != once for row in asked):
        records.audit.append(entry)
        log.error("ALERT %s: release %s: %s", release.use_case, release.id, decision.reason)


def describe_now(settings: Settings, records: Records, use_case: str) -> Mapping[str, Any] | None:
    """Return what nodes must know of a use case from a promotion on: as its file has it now.

    A file that cannot be read is in no release's way: what they know already stays.
    """
    try:
        return Description.of(find(use_case, settings.usecase_dirs)).plain()
    except ConfigError as error:
        log.warning("%s: the nodes are told nothing new of it: %s", use_case, error)
        return records.routes.get(use_case).description


def entry_of(
    release: Release,
    action: str,
    at: datetime,
    details: Mapping[str, Any] | None = None,
    *,
    actor: str = ACTOR,
) -> AuditEntry:
    """Return the audit entry of a transition of a release."""
    told = {"release": release.id, "partition": release.partition, **(details or {})}
    return AuditEntry(
        f"release.{action}", release.use_case, str(release.challenger), actor, told, at
    )
