"""Say how far a release is: as data for XCom and pages, and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from include.deployment.decision import Decision
from include.deployment.release_plan import ReleasePlan
from include.deployment.releasing import describe_release, name_of_step
from include.errors import ConfigError
from include.records.records import Release

State = dict[str, Any]


def state_of(release: Release, decision: Decision | None) -> State:
    """Return how far a release is, with the evidence: small and plain, for XCom and pages.

    Raises:
        ConfigError: this version cannot read the plan of a release that has not ended.
    """
    plan = _plan_of(release)
    last: Mapping[str, Any] = release.verdicts[-1] if release.verdicts else {}
    said = last if decision is None else plain_verdict(decision)
    in_step = release.state == "running"
    return {
        "release": release.id,
        "use_case": release.use_case,
        "partition": release.partition,
        "model": release.challenger,
        "champion": release.champion,
        "state": release.state,
        "kind": plan.kind,
        "replayed": plan.replays,
        "step": release.step,
        "steps": len(plan.steps),
        "name": name_of_step(plan.steps[release.step].share) if in_step else release.state,
        "since": release.entered_at.isoformat(timespec="seconds"),
        "paused": release.paused,
        "suspended": release.suspended,
        "gap_seconds": release.gap_seconds,
        "says": describe_release(release),
        "word": said.get("word", ""),
        "reason": release.reason or said.get("reason", ""),
        "evidence": said.get("evidence", {}),
        "causes": said.get("causes", []),
        "asks": said.get("asks", False),
        "ends_at": said.get("ends_at") if release.ended_at is None else None,
    }


def _plan_of(release: Release) -> ReleasePlan:
    """Return the plan of a release; of one that has ended nobody needs more than that it had one.

    A later version may have written it: the list of past releases is to be shown all the same.
    """
    try:
        return ReleasePlan.read(release.id, release.plan)
    except ConfigError:
        if release.ended_at is None:
            raise
        return ReleasePlan(kind="canary")


def describe_state(state: Mapping[str, Any]) -> str:
    """Return a state as a readable table: how far it is, then a line a metric."""
    lines = [str(state["says"])]
    if state.get("word"):
        lines.append(f"  {state['word']}: {state['reason']}")
    if state.get("asks"):
        lines.append("  a person is asked to look at it: `evergreen release --help`")
    if state.get("ends_at"):
        lines.append(f"  it ends at the latest at {state['ends_at']}")
    for metric, found in state.get("evidence", {}).items():
        told = dict(found) if isinstance(found, Mapping) else {"": found}
        word = told.pop("word", "")
        values = "  ".join(
            f"{name.replace('_', ' ')} {_figure(value)}".strip() for name, value in told.items()
        )
        lines.append(f"  {metric:<14} {word:<5} {values}")
    return "\n".join(lines)


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain_verdict(decision: Decision) -> dict[str, Any]:
    """Return a decision as the records keep it."""
    return {
        "word": decision.word,
        "reason": decision.reason,
        "evidence": dict(decision.evidence),
        "causes": list(decision.causes),
        "asks": decision.asks,
        "ends_at": decision.ends_at.isoformat(timespec="seconds")
        if decision.ends_at is not None and decision.action == "stay"
        else None,
    }
