"""Steer a release as a person says: pause, go on, promote, abort, roll back; freeze and thaw.

Each is one transition of the records with the person and the reason in its audit row. The judge may
move the release at the same moment: what a person says is then said again of this very release, and
never of what has come in its place. To go on to the next step is said of one step alone: said
again of the step after it, that one would be passed without evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from include.config.settings import Settings
from include.deployment.judged_moves import describe_now, entry_of
from include.deployment.loadable import refusal
from include.deployment.probation import plain_probation
from include.deployment.release_actions import ACTIONS
from include.deployment.releasing import describe_release
from include.errors import ConfigError, Conflict
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, Records, Release
from include.records.release_rows import UNDER_WAY

ENDS_TOO = {"abort": "waiting", "roll back": "watched"}  # beside what is under way, if it is named
SAID = {
    "trying": "is tried by the nodes",
    "running": "is in its steps",
    "watched": "is champion and watched",
    "waiting": "waits",
}
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
    version: int | None = None,
    step: int | None = None,
    until: datetime | None = None,
) -> str:
    """Do what a person says of the release of a use case; return what came of it, in a line.

    `version` names the model whose release is meant; None: the one under way, and to end one, the
    one in its steps. `step` is the one that a person wants it to go on from; None: whichever it is
    in.

    Raises:
        ConfigError: there is no such action, or its reason or its end is missing.
        Conflict: there is no release that this could be said of, or it has ended meanwhile.
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
    release = _meant(records, use_case, action, version)
    if action == "advance" and step is not None and release.step != step:
        raise _too_late(release, action)
    for _ in range(_TRIES):
        try:
            return describe_release(
                _move(settings, records, release, action, reason.strip(), actor, at)
            )
        except Conflict:
            now = records.releases.get(use_case, release.id)
            if now is None or now.revision == release.revision:
                raise  # nobody was faster: it cannot be done of this release
            release = _still_meant(now, action, release)
    raise Conflict(f"{use_case}: the release moves all the time; look, then try again")


def _meant(records: Records, use_case: str, action: str, version: int | None) -> Release:
    """Return the release that a person means: of the version, else the one under way.

    Whoever ends one without its version looked at it in its steps. By now it may have ended; then
    neither the champion nor the candidate after it is what was looked at.

    Raises:
        Conflict: there is none.
    """
    releases = records.releases
    found = (releases.running(use_case), releases.watched(use_case), releases.waiting(use_case))
    there = [release for release in found if release is not None]
    could = [release for release in there if release.state in _states(action)]
    if version is not None:
        meant = [release for release in could if release.challenger == version]
    else:
        meant = [one for one in could if action not in ENDS_TOO or one.state == "running"]
    if meant:
        return meant[0]
    if version is None:
        where = "in its steps" if action in ENDS_TOO else "under way"
        told = [f"no release is {where} to {action}", *_what_is(there)]
        told += [f"if model {one.challenger} is meant, name its version" for one in could]
        raise Conflict(f"{use_case}: {'; '.join(told)}")
    told = [f"there is no release of model {version} to {action}", *_what_is(there)]
    ended = [
        describe_release(one)
        for one in releases.of(use_case)
        if one.challenger == version and one.ended_at is not None
    ]
    raise Conflict(f"{use_case}: {'; '.join([*told, *ended[:1]])}")


def _still_meant(release: Release, action: str, was: Release) -> Release:
    """Return a release that has moved on while a person spoke of it as it `was`.

    Raises:
        Conflict: it has come where this cannot be done of it, or was not meant.
    """
    if release.state not in _states(action):
        raise _too_late(release, action)
    if action == "advance" and (release.state, release.step) != (was.state, was.step):
        raise _too_late(release, action)
    return release


def _too_late(release: Release, action: str) -> Conflict:
    told = describe_release(release)
    return Conflict(f"{release.use_case}: too late to {action}: {told}; nothing was done")


def _states(action: str) -> tuple[str, ...]:
    return (*UNDER_WAY, *([ENDS_TOO[action]] if action in ENDS_TOO else []))


def _what_is(releases: Sequence[Release]) -> list[str]:
    return [f"model {release.challenger} {SAID[release.state]}" for release in releases]


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
            return releases.resume(release, 0.0, entry("resumed"), unpause=True)
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
