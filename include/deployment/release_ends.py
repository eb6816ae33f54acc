"""Tell how releases have ended, by whom and of what: as data, for events and alerts.

Whatever hand ended a release (the judge, a person, a node, another release), the records say so,
and it is read from there. What is older than `LATEST` is nobody's news any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from include.alerts.alert import Alert
from include.deployment.burn_rate import causes
from include.deployment.release_state import state_of
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import CHALLENGER, CHAMPION
from include.records.records import AuditRecord, Records, Release

LATEST = timedelta(days=7)
NEWEST = 50  # releases, and audit rows of a kind, that are looked at
ENDINGS = (
    "release.rolled_back",
    "release.rolled_back_late",
    "release.aborted",
    "release.withdrawn",
    "release.settled",
    "release.promoted",
)
BAD = ("rolled_back", "aborted")
ASKS = "release.asks_a_person"
# Where an audit row names a release that it has ended beside the one that it is about.
_NAMED_AS = ("release", "aborted", "waited", "settled")


def new_ends(records: Records, use_case: str, now: datetime) -> list[Release]:
    """Return the releases that have ended lately, the oldest first; `now` by the records' clock."""
    found = [
        release
        for release in records.releases.of(use_case, limit=NEWEST)
        if release.ended_at is not None and release.ended_at >= now - LATEST
    ]
    return sorted(found, key=lambda release: (release.ended_at, release.id))


def end_event(records: Records, release: Release) -> dict[str, Any]:
    """Return how a release has ended: its state, and `end`, `by`, `reason`, `causes`, `evidence`.

    The causes and the evidence are those of the verdict that ended it; where no verdict did, the
    causes are what was counted of its last step.
    """
    entry = _ending(records, release)
    verdict: Mapping[str, Any] = entry.details.get("verdict") or {} if entry else {}
    state = state_of(release, None)
    found = verdict.get("causes") or _counted_causes(records, release)
    return {
        **state,
        "end": release.state,
        "by": entry.actor if entry else "",
        "reason": release.reason or verdict.get("reason") or state["reason"],
        "evidence": verdict.get("evidence") or state["evidence"],
        "causes": found,
        "ended_at": release.ended_at.isoformat(timespec="seconds") if release.ended_at else None,
    }


def new_alerts(records: Records, use_case: str, now: datetime) -> list[Alert]:
    """Return what a person is to know of the releases of a use case, the oldest first.

    One that ended as rolled back or aborted, and one that a person is asked to look at.
    """
    found = [
        _end_alert(release, end_event(records, release))
        for release in new_ends(records, use_case, now)
        if release.state in BAD
    ]
    asked = records.audit.entries(use_case, action=ASKS, limit=NEWEST)
    found += [_ask_alert(entry) for entry in asked if entry.at >= now - LATEST]
    return sorted(found, key=lambda alert: (alert.at, alert.id))


def end_name(release: Release) -> str:
    """Return the name of a release's end, by which it is told once."""
    return f"release.ended/{release.use_case}/{release.id}/{release.state}"


def _end_alert(release: Release, event: Mapping[str, Any]) -> Alert:
    assert release.ended_at is not None
    by = f", by {event['by']}" if event["by"] else ""
    return Alert(
        end_name(release),
        f"release.{release.state}",
        release.use_case,
        f"{release.use_case}: {event['says']}{by}; {_traffic(release)}",
        release.ended_at,
        event,
    )


def _ask_alert(entry: AuditRecord) -> Alert:
    told = entry.details
    return Alert(
        entry.once or f"{entry.action}/{entry.sequence}",
        entry.action,
        entry.use_case,
        f"{entry.use_case}: a person is asked to look at release {told.get('release')} of model "
        f"{entry.subject}: {told.get('reason')}; `evergreen release status {entry.use_case}`",
        entry.at,
        told,
    )


def _traffic(release: Release) -> str:
    if release.champion is None:
        return "no model was champion when it began"
    return f"model {release.champion} was champion when it began"


def _ending(records: Records, release: Release) -> AuditRecord | None:
    """Return the audit row of a release's end; of one that another one took along, that one's."""
    for action in ENDINGS:
        for entry in reversed(records.audit.entries(release.use_case, action=action, limit=NEWEST)):
            names = {str(entry.details.get(name, "")) for name in _NAMED_AS}
            if release.id in names and _fits(action, release):
                return entry
    return None


def _fits(action: str, release: Release) -> bool:
    """Tell whether such a row may be about the end: a promotion ends none that is watched."""
    if release.state == "promoted":
        return action in ("release.settled", "release.promoted")
    return action not in ("release.settled", "release.promoted")


def _counted_causes(records: Records, release: Release) -> list[dict[str, Any]]:
    windows = records.releases.windows(release.use_case, release.id, step=release.step)
    arm = CHAMPION if release.step >= len(release.plan.get("steps", ())) else CHALLENGER
    try:
        return causes(StepWindows(windows, release.step), arm)
    except ValueError:  # counts of another version: they tell nothing here
        return []
