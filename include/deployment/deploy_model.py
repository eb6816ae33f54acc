"""Stage `deploy_model`: release a judged candidate once a serving node has tried it.

Inputs: the verdict and the package. Outputs: the routing row, whose champion is what serves, and
MLflow's aliases, which show it.

No process is started here. The candidate is named as `challenger` in the routing row; a node that
follows the row verifies the bundle, tries it in a child with its golden rows and reports. Then the
release goes on by its plan (`releasing`): it is promoted, in one transaction with the audit row, or
gets the traffic of its first step, where the judge takes it over (`judge_release`). A DAG does so
in tasks (option `phase`: request, then a deferred wait on `rollout.answered`, begin, a deferred
wait a step, conclude).

The routing row is the truth and moves outside the memo: the stage looks at it every time and acts
on a difference only.
"""

from __future__ import annotations

import logging
from typing import Any

from include.clock import wait_for
from include.deployment.candidate import STAGE_NAME, decide_release, nothing_released, released
from include.deployment.gathered import gather
from include.deployment.judge_release import end_abandoned, take_turn
from include.deployment.releasing import (
    ENDED_BADLY,
    begin_release,
    describe_release,
    leave_queue,
    release_of,
    request_release,
)
from include.deployment.rollout import (
    Readiness,
    champion_problems,
    mirror_aliases_of,
    node_readiness,
    serving_nodes,
)
from include.errors import Conflict, MissingPartition, Unavailable
from include.evaluation.verdict import judged_model, not_passed
from include.pipeline.release_outputs import DeploymentOutputs
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.records.records import Model, Release

log = logging.getLogger(__name__)

NAME = STAGE_NAME
FIELDS: tuple[str, ...] = ()
LIBRARIES: tuple[str, ...] = ()

WAIT_SECONDS = 180.0
# For a first sign of life: a node that runs gives one every few seconds, once there is a routing
# row.
NODE_SECONDS = 20.0
SERVED_SECONDS = 15.0
_POLL_SECONDS = 0.2


def inputs(context: StageContext) -> list[Input]:
    """Return the verdict and the package of the partition.

    Raises:
        MissingPartition: one of them is not there; the message has the command that makes it.
    """
    recorded = []
    for stage in ("evaluate_model", "package_model"):
        result = context.result(stage)
        if result is None or result.state == "failed":
            raise MissingPartition(
                f"{context.use_case.name}: {stage} is not done for {context.key}; run `evergreen "
                f"run {stage} --use-case {context.use_case.name} --partition {context.key}`",
                keys=(context.key,),
            )
        recorded.append(Input(stage, context.key, result.digest))
    return recorded


def compute(context: StageContext) -> Outcome:
    """Release the partition's candidate if it may be, as far as the option `phase` says.

    Phases are request, begin, conclude and all (the default), which never waits for steps: of a
    release that is in them it judges once, and answers with how far it is. Option `wait` is how
    many seconds to wait for a node.

    Raises:
        Conflict: the champion is not the one that the candidate was judged against; it must be
            judged again.
        Unavailable: no serving node has tried it in time, or serves it.
        ArtefactError: a serving node has tried it and refuses it; what was served goes on.
    """
    phase = context.options.get("phase", "all")
    if phase == "conclude" and (ended := _ended_badly(context)) is not None:
        return ended
    candidate = decide_release(context)
    if isinstance(candidate, Outcome):
        return _without_release(context, candidate)
    model = candidate.model
    if context.rehearsal:
        return released(model, context.records.routes.get(context.use_case.name))
    release = release_of(context, model)
    if phase in ("request", "all"):
        releases = context.records.releases
        other = releases.running(context.use_case.name)
        if other is not None and other.challenger != model.version:
            end_abandoned(context.records, other, releases.now())
        release = request_release(context, candidate)
    if release is None:
        raise Conflict(
            f"{context.use_case.name} {context.key}: model {model.version} is not being released; "
            f"look at `evergreen release status {context.use_case.name}`"
        )
    if phase == "all" and release.state == "trying":
        _await_nodes(context, float(context.options.get("wait", WAIT_SECONDS)))
    if phase in ("begin", "all") and release.state == "trying":
        release = begin_release(context, candidate, release)
        # Its first step may be over before the log is imported for the first time.
        gather(context.settings, context.lake, context.records, context.use_case, context.started)
    elif phase == "all" and release.state == "running":
        gather(context.settings, context.lake, context.records, context.use_case, context.started)
        take_turn(context.settings, context.records, release, context.records.releases.now())
        release = context.records.releases.get(release.use_case, release.id) or release
    return _outcome(context, model, release)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Mirror the routing row in the registry's aliases, also where a kill came in between."""
    route = context.records.routes.get(context.use_case.name)
    effected: dict[str, Any] = {"champion": route.champion, "generation": route.generation}
    if outcome.state == "done":
        effected["aliases"] = mirror_aliases_of(context.settings, context.records, route)
    return effected


def observe_nodes(context: StageContext) -> Readiness:
    """Return what the serving nodes say of the partition's challenger."""
    name = context.use_case.name
    return node_readiness(context.records.routes.get(name), context.records.nodes.of(name))


def await_served(context: StageContext, model: Model) -> None:
    """Wait until the model answers on a node.

    Raises:
        Unavailable: none says so in time; the routing row stays, and the next try waits again.
    """
    records, name = context.records, context.use_case.name

    def is_served() -> bool:
        route = records.routes.get(name)
        # Taken back or replaced meanwhile, it need not be served any more.
        return route.champion != model.version or bool(serving_nodes(route, records.nodes.of(name)))

    if not wait_for(is_served, seconds=SERVED_SECONDS, every=_POLL_SECONDS):
        problems = champion_problems(records.routes.get(name), records.nodes.of(name))
        raise Unavailable(
            f"{name} {context.key}: model {model.version} is champion, but no node serves it yet: "
            f"{problems}"
        )


def _outcome(context: StageContext, model: Model, release: Release) -> Outcome:
    """Return what a partition came to by its release, as far as that is."""
    reason = describe_release(release)
    if release.state in ("watched", "promoted"):
        await_served(context, model)
        return released(model, context.records.routes.get(context.use_case.name))
    if release.state == "rolled_back":
        return nothing_released("held", reason)
    if release.state in ("aborted", "superseded"):
        return nothing_released("skipped", reason)
    outputs = DeploymentOutputs(version=model.version)
    return Outcome("waiting", "", reason, outputs=outputs.plain())


def _ended_badly(context: StageContext) -> Outcome | None:
    """Return the outcome where the partition's release has ended with another champion."""
    evaluation = context.result("evaluate_model")
    if context.rehearsal or evaluation is None or not_passed(evaluation) is not None:
        return None
    model = judged_model(context)
    release = release_of(context, model)
    return _outcome(context, model, release) if release and release.state in ENDED_BADLY else None


def _without_release(context: StageContext, outcome: Outcome) -> Outcome:
    """Return why nothing is to be released; what waited for its turn leaves the queue."""
    if context.rehearsal or context.mode != "live":
        return outcome
    if outcome.state == "done":
        if _was_not_seen_served(context):
            await_served(context, judged_model(context))
        return outcome
    waiting = context.records.releases.waiting(context.use_case.name)
    if waiting is not None and waiting.partition == context.key:
        leave_queue(context, waiting, outcome.reason)
    return outcome


def _was_not_seen_served(context: StageContext) -> bool:
    """Tell whether an earlier try promoted the model and ended before a node served it."""
    recorded = context.result(NAME)
    return not context.rehearsal and (recorded is None or recorded.state != "done")


def _await_nodes(context: StageContext, seconds: float) -> None:
    """Wait for the nodes' answer, saying at once for what.

    Where no node gives a sign of life within `NODE_SECONDS` there is no answer to wait for.
    """
    readiness = observe_nodes(context)
    if readiness.state != "waiting":
        return
    name = context.use_case.name
    log.warning("%s %s: %s; waiting", name, context.key, readiness.reason)
    follows = wait_for(
        lambda: any(report.living for report in context.records.nodes.of(name)),
        seconds=min(seconds, NODE_SECONDS),
        every=_POLL_SECONDS,
    )
    if follows:
        wait_for(
            lambda: observe_nodes(context).state != "waiting", seconds=seconds, every=_POLL_SECONDS
        )


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    memoised=False,  # the routing row is looked at every time
)
