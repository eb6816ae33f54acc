"""Request a release of a candidate, and begin it once nodes have tried it: what the stage does.

What follows of its plan is decided here, once: a first model and a plan without steps are promoted
as soon as they were tried, thin traffic is replaced by a replay, everything else gets the traffic
of its first step and is judged from then on (`judge_release`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from include.deployment.candidate import Candidate
from include.deployment.description import Description
from include.deployment.loadable import expect_way_back, refusal
from include.deployment.release_plan import ReleasePlan
from include.deployment.replay import judge_replay
from include.deployment.rollout import node_readiness
from include.deployment.traffic import count_traffic
from include.errors import ArtefactError, Conflict, Unavailable
from include.pipeline.stage import StageContext
from include.predictions.entity_hash import entity_hasher
from include.records.audit import AuditEntry
from include.records.records import Model, Release

log = logging.getLogger(__name__)

ENDED_BADLY = ("rolled_back", "aborted")


def release_of(context: StageContext, model: Model) -> Release | None:
    """Return the newest release of a model, as far as the partition of the context asked for it."""
    found = context.records.releases.latest(context.use_case.name)
    mine = (model.version, context.key)
    return next((one for one in found if (one.challenger, one.partition) == mine), None)


def request_release(context: StageContext, candidate: Candidate) -> Release:
    """Have the nodes try a candidate, or queue it behind a release under way or a freeze.

    Of a candidate that is being released already its release is returned.

    Raises:
        Conflict: the state has moved on since it was read.
        ArtefactError: a model that a rollback would go back to cannot be loaded.
        Unavailable: that cannot be found out now.
    """
    releases, name, model = context.records.releases, context.use_case.name, candidate.model
    under_way, frozen = releases.running(name), releases.frozen(name)
    if under_way is not None and under_way.challenger == model.version:
        return under_way
    plan, traffic = _plan(context, candidate)
    replaces = under_way is not None and plan.newer == "replace"
    details = {"plan": plan.kind, **traffic}
    if frozen is None and (under_way is None or replaces):
        details |= _way_back(context, model)  # before a sound release is ended for this one
    if under_way is not None and replaces and frozen is None:
        reason = f"replaced by model {model.version} of {context.key}"
        releases.abort(under_way, reason, _entry(context, "release.aborted", model, {}))
        under_way = None
    what: dict[str, Any] = {
        "partition": context.key,
        "model": model,
        "opponent": candidate.opponent,
        "judged_generation": candidate.generation,
        "plan": plan.plain(),
        # A node follows no use case that it knows nothing of; what is there already changes with
        # the champion that it is for.
        "description": Description.of(context.use_case).plain(),
    }
    if under_way is not None or frozen is not None:
        return releases.wait(name, **what, entry=_entry(context, "release.queued", model, details))
    return releases.request(
        name, **what, entry=_entry(context, "release.requested", model, details)
    )


def begin_release(context: StageContext, candidate: Candidate, release: Release) -> Release:
    """Go on with a release that nodes have tried: promote it, replay the past, or begin its steps.

    A model that nodes would load no more, such as of a key that was revoked since, is aborted. One
    that a person has paused is returned as it is, also where that was done meanwhile.

    Raises:
        Conflict: another hand was faster.
        Unavailable: no node has tried it yet, or has in memory what a rollback would go back to.
        ArtefactError: a node refuses it; it is withdrawn.
    """
    if is_paused(release):
        return release
    try:
        return _begin(context, candidate, release)
    except Conflict:
        now = context.records.releases.get(release.use_case, release.id)
        if now is None or not is_paused(now):
            raise
        return now


def is_paused(release: Release) -> bool:
    """Tell whether a release is paused before its first step."""
    return release.state == "trying" and release.paused


def _begin(context: StageContext, candidate: Candidate, release: Release) -> Release:
    name, records = context.use_case.name, context.records
    route = records.routes.get(name)
    readiness = node_readiness(route, records.nodes.of(name))
    if readiness.state == "waiting":
        raise Unavailable(
            f"{name} {context.key}: model {release.challenger} is not released: {readiness.reason}"
        )
    # Of another challenger, which took its place meanwhile, a report says nothing of this one.
    if readiness.state == "failed" and route.challenger == release.challenger:
        _withdraw(context, candidate.model, release, readiness.reason)
        raise ArtefactError(
            f"{name} {context.key}: model {release.challenger} is not released: "
            f"{readiness.reason}; what was served goes on"
        )
    if (ended := _unless_loadable(context, candidate, release)) is not None:
        return ended
    plan = ReleasePlan.read(release.id, release.plan)
    if plan.kind == "first":
        return _promote(context, candidate, release, "nobody serves: promoted as soon as tried")
    if plan.kind == "direct":
        return _promote(context, candidate, release, "its plan has no steps: promoted as tried")
    if plan.replays:
        return _replay(context, candidate, release, plan)
    entry = _entry(context, "release.began", candidate.model, {})
    return records.releases.begin(release, entry)


def leave_queue(context: StageContext, waiting: Release, reason: str) -> None:
    """Take a candidate out of the queue that may not be released any more."""
    action, who = "release.aborted", str(waiting.challenger)
    entry = AuditEntry(action, waiting.use_case, who, context.actor, {}, context.started)
    context.records.releases.abort(waiting, reason, entry)


def describe_release(release: Release) -> str:
    """Return in a line how far a release is."""
    model = f"model {release.challenger}"
    if release.state == "waiting":
        return f"{model} waits for the release under way to end"
    if is_paused(release):
        return (
            f"{model} is paused before its first step; `evergreen release unpause "
            f"{release.use_case}` lets it go on"
        )
    if release.state == "trying":
        return f"waiting for a serving node to try {model}"
    if release.state != "running":
        told = f": {release.reason}" if release.reason else ""
        return f"release {release.id} of {model} is {release.state.replace('_', ' ')}{told}"
    steps = ReleasePlan.read(release.id, release.plan).steps
    held = ", paused" if release.paused else ", suspended" if release.suspended else ""
    return (
        f"release {release.id} of {model} is in step {release.step + 1} of {len(steps)} "
        f"({name_of_step(steps[release.step].share)}{held}); `evergreen release status "
        f"{release.use_case}` shows it"
    )


def name_of_step(share: int) -> str:
    """Return how people call a step of so many basis points."""
    return f"{share / 100:g} %" if share else "shadow"


def _plan(context: StageContext, candidate: Candidate) -> tuple[ReleasePlan, dict[str, Any]]:
    """Return the plan, and what the audit row says of the traffic that it was decided by."""
    plan = ReleasePlan.of(
        context.use_case, first=candidate.opponent is None, name_of=_name_of(context)
    )
    if plan.kind != "canary":
        return plan, {}
    traffic = count_traffic(context.lake, context.use_case.name, context.started)
    plan = plan.decided(traffic.requests, traffic.entities)
    return plan, {"thin": plan.thin, "traffic": traffic.plain()}


def _name_of(context: StageContext) -> Callable[[str], str]:
    """Return what names an entity where it may be read: by a keyed hash if its key is `pii`."""
    if not context.use_case.hashes_entity:
        return str
    return entity_hasher(context.settings.entity_secret.get_secret_value())


def _replay(
    context: StageContext, candidate: Candidate, release: Release, plan: ReleasePlan
) -> Release:
    """Judge a release by past requests: too few are to come for its steps."""
    releases, model = context.records.releases, candidate.model
    judged = judge_replay(context, release, plan)
    how = "thin traffic: judged on past requests"
    verdict = {"word": judged.word, "reason": judged.reason, "evidence": judged.evidence}
    details = {"how": how, "verdict": verdict}
    if judged.word == "fail":
        entry = _entry(context, "release.rolled_back", model, details)
        return releases.roll_back(release, judged.reason, entry, by_itself=True)
    if judged.word == "hold":
        entry = _entry(context, "release.aborted", model, details)
        return releases.abort(release, judged.reason, entry)
    return _promote(context, candidate, release, how, verdict=verdict)


def _promote(
    context: StageContext, candidate: Candidate, release: Release, how: str, **details: Any
) -> Release:
    if (ended := _unless_loadable(context, candidate, release)) is not None:
        return ended  # a replay takes its time
    name, route = context.use_case.name, context.records.routes.get(context.use_case.name)
    told = {"how": how, "judged_against": candidate.opponent, "previous": route.champion, **details}
    promoted = context.records.releases.promote(
        release,
        _entry(context, "release.promoted", candidate.model, told),
        Description.of(context.use_case).plain(),
    )
    log.info("%s: model %d of %s is champion: %s", name, release.challenger, context.key, how)
    return promoted


def _unless_loadable(
    context: StageContext, candidate: Candidate, release: Release
) -> Release | None:
    """Abort a release whose model nodes would load no more; None: they would."""
    why = refusal(context.settings, context.records, release)
    if not why:
        return None
    entry = _entry(context, "release.aborted", candidate.model, {})
    return context.records.releases.abort(release, why, entry)


def _way_back(context: StageContext, model: Model) -> dict[str, Any]:
    """Return what the audit row says of the models that a rollback would go back to.

    Raises: as `expect_way_back`; what is refused is on record.
    """
    try:
        return expect_way_back(context, model.version)
    except ArtefactError as error:
        entry = _entry(context, "release.requested.refused", model, {"reason": str(error)})
        context.records.audit.append(entry)
        raise


def _withdraw(context: StageContext, model: Model, release: Release, reason: str) -> None:
    """End a release that nodes refuse; whoever ended it before has said why."""
    entry = _entry(context, "release.withdrawn", model, {})
    with contextlib.suppress(Conflict):
        context.records.releases.abort(release, reason, entry, retire=True)


def _entry(context: StageContext, action: str, model: Model, details: dict[str, Any]) -> AuditEntry:
    content = {
        "partition": context.key,
        "model_digest": model.model_digest,
        "bento_tag": model.bento_tag,
        **details,
    }
    return AuditEntry(
        action, context.use_case.name, str(model.version), context.actor, content, context.started
    )
