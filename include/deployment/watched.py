"""Judge a champion that is watched after its promotion. Pure, as the judgement of a step is.

Nodes count for the release that the routing row names. While the next one is under way that is not
the watched one: its windows are the champion's of that one (`watched_windows`), if there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from include.deployment import levels
from include.deployment.burn_rate import (
    LEAST_BAD,
    LEAST_BAD_OTHER,
    arm_burn,
    burns_alone,
    causes,
)
from include.deployment.decision import Action, Decision
from include.deployment.metric_verdicts import as_challenger, judge_metrics
from include.deployment.release_plan import ReleasePlan
from include.deployment.unseen import unseen
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import CHALLENGER, CHAMPION, REQUESTS
from include.records.release_reports import Guard
from include.records.release_rows import UNDER_WAY, Release

MINUTE = "%Y-%m-%d %H:%M"


def judge_watched(
    release: Release,
    plan: ReleasePlan,
    windows: StepWindows,
    guards: Sequence[Guard],
    now: datetime,
    *,
    changes: Sequence[str] = (),
    beside: Sequence[Release] = (),
) -> Decision:
    """Judge a champion by its limits and its SLO alone: nobody is asked all that it is asked.

    Where the challenger of the next release burns too, that is a common cause, which takes nobody
    back; nor do requests that the model before it failed at as well: a node asks that one what the
    champion fails at. Of a watch in which releases `beside` it were under way of which nothing is
    known (`watched_windows`) it is not said that it was passed; nor is it of one in which nobody
    asked anything.

    A guard is of a step, and of an arm, that have none any more: told late, it takes nothing back,
    as the model's own answers do if it is as bad as that. A person is asked.
    """
    minute = int(now.timestamp() // 60)
    reason, about, evidence = _against(plan, windows, minute)
    ends = release.entered_at + timedelta(seconds=plan.watch)
    if reason:
        told = causes(windows, CHAMPION, changes=changes)
        common = ""
        if all(
            arm_burn(windows, arm, minute, plan.slo).burns(least)
            for arm, least in ((CHAMPION, LEAST_BAD), (CHALLENGER, LEAST_BAD_OTHER))
        ):
            common = "both models burn"
        elif not _against(plan, windows.without_shared(), minute)[0]:
            common = "the model before it fails at the same requests"
        if common:
            after: Action = "promote" if now >= ends else "stay"
            reason = f"a common cause: {common}; {reason}"
            held = ("a common cause", *about)
            found = Decision("hold", after, reason, evidence, told, ends, held)
            return _as_seen(release, found, windows, beside)
        once = not release.rolled_back_by_itself and release.champion is not None
        action: Action = "roll_back" if once else "stay"
        return Decision("fail", action, reason, evidence, told, ends, about)
    found = _stands(plan, windows, guards, evidence, ends=ends, is_over=now >= ends)
    return _as_seen(release, found, windows, beside)


def _against(
    plan: ReleasePlan, windows: StepWindows, minute: int
) -> tuple[str, tuple[str, ...], dict[str, dict[str, Any]]]:
    """Return what speaks against a champion, its kinds, and the evidence."""
    reasons, about = list[str](), list[str]()
    burn = arm_burn(windows, CHAMPION, minute, plan.slo)
    if burns_alone(windows, minute, plan.slo, levels.burn_level(plan)):
        reasons.append(f"it burns at {burn.rates[0]:.1f} times what the SLO allows")
        about.append("burns")
    verdicts = judge_metrics(plan, windows.sums(), absolute=True, champion=True)
    if verdicts.failed:
        reasons.append(verdicts.failed)
        about += verdicts.named("fail")
    return "; ".join(reasons), tuple(about), {**verdicts.evidence, "burn rate": burn.plain()}


def was_beside(release: Release, other: Release) -> bool:
    """Tell whether nodes have counted for another release while this one was watched.

    One that has ended did so in its steps: what came while it was tried is a matter of seconds, and
    whatever only waited took nothing.
    """
    if other.id == release.id or other.state in ("waiting", "superseded"):
        return False
    if other.ended_at is None:
        return other.state in UNDER_WAY
    return other.ended_at > release.entered_at and other.entered_at > other.started_at


def _not_seen(release: Release, other: Release) -> str:
    since = max(release.entered_at, other.started_at)
    if other.ended_at is None:
        return f"not seen since {since:{MINUTE}}: release {other.id} is under way"
    return (
        f"not seen from {since:{MINUTE}} to {other.ended_at:{MINUTE}}: release {other.id} was "
        "under way"
    )


def _as_seen(
    release: Release, found: Decision, windows: StepWindows, beside: Sequence[Release]
) -> Decision:
    """Return what is decided on a champion that nothing is found against, as far as it was seen."""
    told = "; ".join([found.reason, *(_not_seen(release, other) for other in beside)])
    if any(other.ended_at is None for other in beside):
        # The end of that release is the end of this watch, or has it seen again.
        return replace(found, word="hold", action="stay", reason=told, ends_at=None)
    if found.action != "promote":
        return replace(found, reason=told)
    if beside:
        about = (*found.asks_about, "unseen")
        return replace(found, word="hold", reason=told, asks_about=about)
    if not windows.arm_total(CHAMPION).column(REQUESTS):
        return replace(found, word="hold", reason=f"{found.reason}; nobody asked it anything")
    return found


def _stands(
    plan: ReleasePlan,
    windows: StepWindows,
    guards: Sequence[Guard],
    evidence: dict[str, dict[str, Any]],
    *,
    ends: datetime,
    is_over: bool,
) -> Decision:
    """Return the decision on a champion that nothing is found against."""
    late = [f"late, the guard of {guard.node} in its steps: {guard.reason}" for guard in guards]
    unclear = {
        f"unclear {name}": reason
        for name, reason in unseen(plan, as_challenger(windows.sums()), absolute=True).items()
        if reason
    }
    about = (*unclear, *(["guard"] if late else []))
    after: Action = "promote" if is_over else "stay"
    if unclear:
        reason = "; ".join([*unclear.values(), *late])
        return Decision("hold", after, reason, evidence, [], ends, about)
    reason = "; ".join(["its watch is over" if is_over else "watched", *late])
    return Decision("pass", after, reason, evidence, [], ends, about)
