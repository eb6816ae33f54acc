"""Stage `deploy_model`: release a judged candidate once a serving node has tried it.

Inputs: the verdict and the package. Outputs: the routing row, whose champion is what serves, and
MLflow's aliases, which show it.

No process is started here. `request_release` names the candidate as `challenger` in the routing
row; a node that follows the row verifies the bundle, tries it in a child with its golden rows and
reports; `finish_release` then makes it champion, in one transaction with the audit row, if the
champion is still the one that it was judged against. A DAG does the three steps in tasks (option
`phase`: request, then a deferred wait on `rollout.answered`, then finish).

The routing row is the truth and moves outside the memo: the stage looks at it every time and acts
on a difference only.
"""

from __future__ import annotations

import logging
from typing import Any

from include.clock import wait_for
from include.deployment.candidate import STAGE_NAME, Candidate, decide_release, released
from include.deployment.description import Description
from include.deployment.rollout import (
    Readiness,
    champion_problems,
    mirror_aliases_of,
    node_readiness,
    serving_nodes,
)
from include.errors import ArtefactError, Conflict, MissingPartition, Unavailable
from include.evaluation.verdict import judged_model
from include.pipeline.release_outputs import DeploymentOutputs
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.records.records import AuditEntry, Model, Route

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

    Phases are request, finish and all (the default); option `wait` is how many seconds to wait for
    a node.

    Raises:
        Conflict: the champion is not the one that the candidate was judged against; it must be
            judged again.
        Unavailable: no serving node has tried it in time, or serves it.
        ArtefactError: a serving node has tried it and refuses it; what was served goes on.
    """
    candidate = decide_release(context)
    if isinstance(candidate, Outcome):
        if candidate.state == "done" and _was_not_seen_served(context):
            await_served(context, judged_model(context))
        return candidate
    phase = context.options.get("phase", "all")
    if context.rehearsal:
        return released(candidate.model, context.records.routes.get(context.use_case.name))
    if phase in ("request", "all"):
        request_release(context, candidate)
    if phase == "request":
        reason = f"waiting for a serving node to try model {candidate.model.version}"
        outputs = DeploymentOutputs(version=candidate.model.version)
        return Outcome("waiting", "", reason, outputs=outputs.plain())
    if phase == "all":
        _await_nodes(context, float(context.options.get("wait", WAIT_SECONDS)))
    return finish_release(context, candidate)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Mirror the routing row in the registry's aliases, also where a kill came in between."""
    route = context.records.routes.get(context.use_case.name)
    effected: dict[str, Any] = {"champion": route.champion, "generation": route.generation}
    if outcome.state == "done":
        effected["aliases"] = mirror_aliases_of(context.settings, context.records, route)
    return effected


def request_release(context: StageContext, candidate: Candidate) -> Route:
    """Name the candidate as challenger in the routing row, unless it is that already.

    Raises:
        Conflict: the row has moved on since it was read.
    """
    name, model = context.use_case.name, candidate.model
    route = context.records.routes.get(name)
    if route.challenger == model.version:
        return route
    return context.records.routes.change(
        name,
        set={
            "challenger": model.version,
            "step": 0,
            "weight": 0.0,
            # A node follows no use case that it knows nothing of; what is there already changes
            # with the champion that it is for.
            **({} if route.description else {"description": _description(context)}),
        },
        entry=_entry(context, "release.requested", model, {}),
        expect_generation=route.generation,
        expect_champion=candidate.opponent,
        judged_generation=candidate.generation,
    )


def observe_nodes(context: StageContext) -> Readiness:
    """Return what the serving nodes say of the partition's challenger."""
    name = context.use_case.name
    return node_readiness(context.records.routes.get(name), context.records.nodes.of(name))


def finish_release(context: StageContext, candidate: Candidate) -> Outcome:
    """Make the challenger champion if a node has tried it, then wait until it is served.

    Raises:
        Conflict: another release or a rollback came first.
        Unavailable: no node has tried it yet, or serves it.
        ArtefactError: a node refuses it; it is withdrawn.
    """
    name, model = context.use_case.name, candidate.model
    route = context.records.routes.get(name)
    readiness = node_readiness(route, context.records.nodes.of(name))
    if route.challenger != model.version:
        raise Conflict(
            f"{name} {context.key}: model {model.version} is no longer being released; look at "
            f"`evergreen status {name}`"
        )
    if readiness.state == "waiting":
        raise Unavailable(
            f"{name} {context.key}: model {model.version} is not released: {readiness.reason}"
        )
    if readiness.state == "failed":
        _withdraw(context, candidate, route, readiness.reason)
        raise ArtefactError(
            f"{name} {context.key}: model {model.version} is not released: {readiness.reason}; "
            "what was served goes on"
        )
    details = {"judged_against": candidate.opponent, "previous": route.champion}
    route = context.records.routes.change(
        name,
        set={
            "champion": model.version,
            "previous": _last_good(context, route),
            "challenger": None,
            "step": 0,
            "weight": 0.0,
            "description": _description(context),
        },
        entry=_entry(context, "release.promoted", model, details),
        expect_generation=route.generation,
        expect_champion=candidate.opponent,
        judged_generation=candidate.generation,
        partition=context.key,
    )
    log.info(
        "%s: model %d of %s is champion (generation %d)",
        name,
        model.version,
        context.key,
        route.generation,
    )
    await_served(context, model)
    return released(model, route)


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


def _last_good(context: StageContext, route: Route) -> int | None:
    """Return the champion that is replaced; if it is on hold, the one that was good before it."""
    champion = (
        context.records.models.get(context.use_case.name, route.champion)
        if route.champion is not None
        else None
    )
    if champion is None or champion.model_digest in route.held:
        return route.previous
    return champion.version


def _withdraw(context: StageContext, candidate: Candidate, route: Route, reason: str) -> None:
    if route.challenger is None:
        return
    name, model = context.use_case.name, candidate.model
    with context.records.transaction() as session:
        context.records.routes.change(
            name,
            set={"challenger": None, "step": 0, "weight": 0.0},
            entry=_entry(context, "release.withdrawn", model, {"reason": reason}),
            expect_generation=route.generation,
            session=session,
        )
        # Else MLflow's alias would go on showing a refused model as the one to come.
        context.records.models.update(name, model.version, session=session, state="retired")


def _description(context: StageContext) -> dict[str, Any]:
    return Description.of(context.use_case).plain()


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


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    memoised=False,  # the routing row is looked at every time
)
