"""Steer a release as a person says: pause, go on, promote, abort, roll back; freeze and thaw.

Each is one transition of the records with the person and the reason in its audit row. The judge may
move the release at the same moment: what a person says is then said again of what there is now.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from include.config.settings import Settings
from include.deployment.judge_release import describe_now, entry_of
from include.deployment.loadable import refusal
from include.deployment.probation import plain_probation
from include.deployment.release_actions import ACTIONS
from include.deployment.releasing import describe_release
from include.errors import ConfigError, Conflict
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, Records, Release

LONGEST_FREEZE = timedelta(days=366)
_TRIES = 20  # against the judge, which notes what it sees every few seconds


def steer(
    settings: Settings,
    use_case: str,
    action: str,
    *,
    reason: str,
    actor: str,
    at: datetime,
    until: datetime | None = None,
) -> str:
    """Do what a person says of the release of a use case; return what came of it, in a line.

    Raises:
        ConfigError: there is no such action, or its reason or its end is missing.
        Conflict: there is no release that this could be said of.
    """
    if action not in ACTIONS:
        raise ConfigError(f"{action!r} is no action; say one of {', '.join(ACTIONS)}")
    if not reason.strip():
        raise ConfigError(f"{use_case}: to {action} needs a reason; it is kept in the audit log")
    records = task_records(settings)
    if action in ("freeze", "thaw"):
        entry = AuditEntry(
            f"release.{action}", use_case, use_case, actor, {"reason": reason.strip()}, at
        )
        return _freeze(records, use_case, action, entry, at, until)
    for _ in range(_TRIES):
        release = _meant(records, use_case, action)
        try:
            return describe_release(
                _move(settings, records, release, action, reason.strip(), actor, at)
            )
        except Conflict:
            now = records.releases.get(use_case, release.id)
            if now is None or now.revision == release.revision:
                raise  # nobody was faster: it cannot be done of this release
    raise Conflict(f"{use_case}: the release moves all the time; look, then try again")


def _meant(records: Records, use_case: str, action: str) -> Release:
    """Return the release that a person means: the one under way, else one that this ends.

    Raises:
        Conflict: there is none.
    """
    releases = records.releases
    release = releases.running(use_case)
    if release is None and action == "abort":
        release = releases.waiting(use_case)
    if release is None and action == "roll back":
        release = releases.watched(use_case)
    if release is not None:
        return release
    watched = releases.watched(use_case)
    hint = (
        f"; model {watched.challenger} is champion and watched, and can be rolled back"
        if watched is not None
        else ""
    )
    raise Conflict(f"{use_case}: no release is under way to {action}{hint}")


def _move(
    settings: Settings,
    records: Records,
    release: Release,
    action: str,
    reason: str,
    actor: str,
    at: datetime,
) -> Release:
    releases = records.releases

    def entry(name: str) -> AuditEntry:
        return entry_of(release, name, at, {"reason": reason}, actor=actor)

    def resumed() -> Release:
        if release.suspended:
            return releases.resume(release, 0.0, entry("resumed"))
        return releases.unpause(release, entry("unpaused"))

    def advanced() -> Release:
        if release.state == "running" and release.step + 1 < len(release.plan["steps"]):
            verdict = {"word": "pass", "reason": f"{actor}: {reason}", "evidence": {}}
            return releases.advance(release, verdict, entry("advanced"))
        return promoted()

    def promoted() -> Release:
        if release.state != "running":
            raise Conflict(
                f"{release.use_case}: model {release.challenger} was not tried yet, so it cannot "
                "be promoted"
            )
        if why := refusal(settings, records, release):
            raise Conflict(
                f"{release.use_case}: model {release.challenger} cannot be promoted, no node would "
                f"load it: {why}"
            )
        description = describe_now(settings, records, release.use_case)
        return releases.promote(release, entry("promoted"), description)

    moves: dict[str, Callable[[], Release]] = {
        "pause": lambda: releases.pause(release, entry("paused")),
        "unpause": resumed,
        "advance": advanced,
        "promote": promoted,
        "abort": lambda: releases.abort(release, reason, entry("aborted")),
        "roll back": lambda: releases.roll_back(release, reason, entry("rolled_back")),
    }
    return moves[action]()


def _freeze(
    records: Records,
    use_case: str,
    action: str,
    entry: AuditEntry,
    at: datetime,
    until: datetime | None,
) -> str:
    """Let no release start until then, or let releases start again.

    Raises:
        ConfigError: a freeze has no end, or one that is over or too far away.
    """
    if action == "thaw":
        was = records.releases.thaw(use_case, entry)
        return f"{use_case}: releases start again" if was else f"{use_case} was not frozen"
    if until is None:
        raise ConfigError(f"{use_case}: a freeze needs its end; add when it is over")
    if until.tzinfo is None or not at < until <= at + LONGEST_FREEZE:
        raise ConfigError(
            f"{use_case}: {until} is no end of a freeze; say a moment from now to a year from now, "
            "with its time zone"
        )
    frozen = records.releases.freeze(use_case, until, entry)
    return (
        f"{use_case}: no release starts until {frozen.until:%Y-%m-%d %H:%M} UTC; a rollback always "
        "may"
    )


def status(settings: Settings, use_case: str) -> dict[str, Any]:
    """Return what is under way, watched and waiting of a use case, as the records have it."""
    from include.deployment.release_state import state_of

    records = task_records(settings)
    releases = records.releases
    frozen, beat = releases.frozen(use_case), releases.last_beat(use_case)
    found = {
        "under_way": releases.running(use_case),
        "watched": releases.watched(use_case),
        "waiting": releases.waiting(use_case),
    }
    now = releases.now()
    return {
        "use_case": use_case,
        "champion": records.routes.get(use_case).champion,
        **{
            name: None if release is None else state_of(release, None)
            for name, release in found.items()
        },
        "judged_seconds_ago": None if beat is None else (now - beat.at).total_seconds(),
        "frozen": None
        if frozen is None
        else {
            "until": frozen.until.isoformat(timespec="seconds"),
            "actor": frozen.actor,
            "reason": frozen.reason,
        },
        "guards": []
        if found["under_way"] is None
        else [
            {"node": guard.node, "reason": guard.reason}
            for guard in releases.guards(use_case, found["under_way"].id)
        ],
        "probations": [plain_probation(one) for one in records.probations.open(use_case)],
        "last": [state_of(release, None) for release in releases.of(use_case, limit=5)],
    }
