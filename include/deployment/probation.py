"""Say how far the probations of a use case are, and how a cohort fared, as a person found it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from include.config.settings import Settings
from include.errors import ConfigError, Conflict
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, Probation


def describe_probation(probation: Probation) -> str:
    """Return in a line what a probation is, and what is to be done."""
    model, name = f"model {probation.version}", probation.use_case
    judge = f"`evergreen release probation {name} {probation.version} --help` says how it fared"
    words: Mapping[str, str] = {
        "maturing": f"is on probation until the outcomes of its release are mature, on "
        f"{probation.matures_at:%Y-%m-%d %H:%M} UTC",
        "due": f"is on probation, and the outcomes of its release are mature; {judge}",
        "regressed": f"has regressed on probation ({probation.reason}) and still serves; "
        f"`evergreen rollback {name} --reason ...` takes it back",
        "passed": f"has passed its probation: {probation.reason}",
        "not_good": f"is not good ({probation.reason}): no rollback goes to it, and nobody is "
        "judged against it",
        "rolled_back": "was rolled back on probation",
        "lapsed": f"was on probation, and {probation.reason}",
    }
    return f"{model} {words[probation.state]}"


def plain_probation(probation: Probation) -> dict[str, Any]:
    """Return a probation for a page or JSON."""
    return {
        "model": probation.version,
        "release": probation.release_id,
        "state": probation.state,
        "matures_at": probation.matures_at.isoformat(timespec="seconds"),
        "says": describe_probation(probation),
    }


def judge_probation(
    settings: Settings,
    use_case: str,
    version: int,
    *,
    good: bool,
    reason: str,
    actor: str,
    at: datetime,
) -> str:
    """Say how the cohort of a version fared; return what came of it, in a line.

    Raises:
        ConfigError: the reason is missing.
        Conflict: the version is not on probation, its outcomes are not mature, or it was judged.
    """
    if not reason.strip():
        raise ConfigError(f"{use_case}: to judge a probation needs a reason; it is kept on record")
    records = task_records(settings)
    open_ones = {one.version: one for one in records.probations.open(use_case)}
    if version not in open_ones:
        listed = ", ".join(map(str, sorted(open_ones))) or "none"
        raise Conflict(f"{use_case}: model {version} is not on probation; on probation: {listed}")
    # What has become due since the last import of the log is due now.
    seen = AuditEntry("probation.reviewed", use_case, str(version), actor, {}, at)
    moved = {one.version: one for one in records.probations.review(use_case, seen)}
    entry = AuditEntry("probation.judged", use_case, str(version), actor, {}, at)
    probation = moved.get(version, open_ones[version])
    return describe_probation(
        records.probations.judge(probation, good=good, reason=reason.strip(), entry=entry)
    )
