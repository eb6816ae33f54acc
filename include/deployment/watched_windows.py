"""What nodes have counted of a watched champion: for its own release, and for those after it.

A node counts for the release that the routing row names. While the next one is under way, its
champion is the watched model, and what is counted of that arm is counted of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from include.deployment.release_plan import ReleasePlan
from include.deployment.watched import was_beside
from include.errors import ConfigError
from include.predictions.window_counts import CHALLENGER, CHAMPION, SHADOW
from include.records.records import Records, Release
from include.records.release_reports import Window

# A trial counts nothing, and is a matter of seconds unless a person pauses it: what took longer
# than the burn rate looks back is told as not seen.
LONGEST_TRIAL = 600.0


def watched_windows(
    records: Records, release: Release, plan: ReleasePlan
) -> tuple[list[Window], list[Release]]:
    """Return the windows of a watched champion, and the releases in which it was not seen.

    Those of the releases after it stand as windows of its own release: no request is in two, since
    a node counts each for one release. An entity is in another cluster for each, as clusters are
    keyed by the release: sums of clusters are a little less independent than they are taken for.
    The arm of their challenger comes along: it is who else was asked in the same minutes.
    """
    found = records.releases.windows(release.use_case, release.id, step=release.step)
    unseen = []
    for other in _beside(records, release):
        counted = _counted(records, release, plan, other)
        if not counted:
            unseen.append(other)
            continue
        began = datetime.fromtimestamp(60 * counted[0].minute, UTC)
        if (began - other.started_at).total_seconds() > LONGEST_TRIAL:
            unseen.append(replace(other, ended_at=began))
        found += [replace(one, release_id=release.id, step=release.step) for one in counted]
    return found, unseen


def _beside(records: Records, release: Release) -> list[Release]:
    """Return the releases that were under way while one is watched, the oldest first."""
    found = {other.id: other for other in records.releases.latest(release.use_case)}
    beside = [other for other in found.values() if was_beside(release, other)]
    return sorted(beside, key=lambda other: other.started_at)


def _counted(records: Records, release: Release, plan: ReleasePlan, other: Release) -> list[Window]:
    """Return what was counted for another release and tells of this champion, by minute.

    Nothing where that one had another champion, or counted other answers as slow; nor where nobody
    was counted as its champion.
    """
    if other.champion != release.challenger:
        return []
    try:
        beside = ReleasePlan.read(other.id, other.plan)
    except ConfigError:  # a later version's
        return []
    if beside.slow_us != plan.slow_us:
        return []
    mirrored = {number for number, step in enumerate(beside.steps) if not step.share}
    since = release.entered_at.timestamp()
    found = [
        one
        for one in records.releases.windows(other.use_case, other.id)
        if 60 * one.minute >= since
        and (one.arm in (CHAMPION, CHALLENGER) or (one.arm == SHADOW and one.step in mirrored))
    ]
    return found if any(one.arm == CHAMPION for one in found) else []
