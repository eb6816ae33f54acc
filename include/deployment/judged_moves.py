"""Do what a judgement of a release says: its transition by compare-and-set, and asking a person."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from include.config.settings import Settings
from include.config.use_case_file import find
from include.deployment.decision import Decision
from include.deployment.description import Description
from include.deployment.release_state import plain_verdict
from include.deployment.rollback import ACTION as ROLLED_BACK
from include.errors import ConfigError, Conflict
from include.records.records import AuditEntry, Records, Release

log = logging.getLogger(__name__)

ACTOR = "judge"
ASKED = 50  # rows of the audit log that tell what a person was asked about already


def unless_moved_on(
    records: Records, release: Release, decision: Decision, refusal: Conflict, now: datetime
) -> Decision:
    """Return what a decision comes to whose transition the records refuse.

    The release stays where it is, a person is asked, and its deadline ends it.

    Raises:
        Conflict: another hand was faster, or a guard has latched meanwhile: the next look sees it.
    """
    seen = records.releases.get(release.use_case, release.id)
    if seen is None or seen.revision != release.revision:
        raise refusal
    is_running = release.state == "running"
    latched = records.releases.guards(release.use_case, release.id)
    if is_running and decision.word == "pass" and latched:
        raise refusal
    is_late = is_running and decision.ends_at is not None and now >= decision.ends_at
    return replace(
        decision,
        word="hold" if decision.word == "pass" else decision.word,
        action="abort" if is_late and decision.action != "abort" else "stay",
        reason=f"{decision.reason}; the records refuse it: {refusal}",
        asks_about=(*decision.asks_about, f"refused {decision.action}"),
    )


def carry_out(
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

    def entry(action: str, details: Mapping[str, Any] | None = None) -> AuditEntry:
        made = entry_of(release, action, now, details)
        return replace(made, refused_once=f"{made.action}/{in_step(release)}")

    match decision.action:
        case "advance":
            releases.advance(release, verdict, entry("advanced"))
        case "promote" if release.state == "watched":
            releases.settle(release, entry("settled", details))
        case "promote":
            promoted = entry("promoted", {"how": "all steps passed", **details})
            releases.promote(release, promoted, describe_now(settings, records, release.use_case))
        case "suspend":
            releases.suspend(release, entry("suspended", details))
        case "resume":
            releases.resume(release, gap, entry("resumed", details))
        case "abort":
            releases.abort(release, decision.reason, entry("aborted", details))
        case "roll_back":
            rolled_back = entry(ROLLED_BACK.removeprefix("release."), details)
            releases.roll_back(release, decision.reason, rolled_back, by_itself=True)
        case _:
            releases.note(release, verdict, entry("judged"))


def in_step(release: Release) -> str:
    """Return what names a step of a release, as it was entered last."""
    return f"{release.id}/{release.step}/{release.entered_at.isoformat()}"


def ask_person(records: Records, release: Release, decision: Decision, now: datetime) -> None:
    """Say that a person is to look at a release, once a step for each kind of reason."""
    entry = entry_of(release, "asks_a_person", now)
    step = in_step(release)
    asked = records.audit.entries(release.use_case, action=entry.action, limit=ASKED)
    told = {
        kind for row in asked if row.details.get("in_step") == step for kind in row.details["about"]
    }
    if not (untold := [kind for kind in decision.asks_about if kind not in told]):
        return
    details = {
        **entry.details,
        "word": decision.word,
        "reason": decision.reason,
        "about": untold,
        "in_step": step,
        "causes": list(decision.causes),
    }
    once = f"release.asks/{release.use_case}/{step}/{','.join(untold)}"
    records.audit.append(replace(entry, details=details, once=once))
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
