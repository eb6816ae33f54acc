"""Release a judged candidate: ask for it, wait until a serving node has tried it, make it champion.

And take it back.

No process is started here. `request_release` names the candidate as `challenger` in the routing
row; a node that follows the row verifies the bundle, tries it in a child with its golden rows and
reports; `finish_release` then makes it champion, in one transaction with the audit row, if the
champion is still the one that it was judged against. A DAG does the three steps in tasks (option
`phase`: request, then a deferred wait on `rollout.answered`, then finish).

The routing row is the truth and moves outside the memo: the stage looks at it every time and acts
on a difference only.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from include.deployment.rollout import (
    Readiness,
    mirror_aliases_of,
    readiness,
    release_hold,
    rollback,
)
from include.errors import ArtefactError, Conflict, MissingPartition, Unavailable
from include.evaluation.verdict import judged_model, not_passed
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.records.records import AuditEntry, Model, Records, Route

__all__ = [
    "compute",
    "effects",
    "finish_release",
    "inputs",
    "observed",
    "release_hold",
    "request_release",
    "rollback",
]

log = logging.getLogger(__name__)

NAME = "deploy_model"
FIELDS: tuple[str, ...] = ()
LIBRARIES: tuple[str, ...] = ()

WAIT_SECONDS = 180.0
# for a first sign of life: a node that runs gives one every few seconds, once there is a routing
# row.
NODE_SECONDS = 20.0
SERVED_SECONDS = 15.0
_POLL_SECONDS = 0.2
_WITHOUT_MODEL = "sha256:" + hashlib.sha256(b"nothing to release").hexdigest()


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be released, against which version it was judged, and in which generation of the
    routing row.
    """

    model: Model
    opponent: int | None
    generation: int


def inputs(context: StageContext) -> list[Input]:
    """Return the verdict and the package of the partition."""
    found = []
    for stage in ("evaluate_model", "package_model"):
        result = context.result(stage)
        if result is None or result.state == "failed":
            raise MissingPartition(
                f"{context.use_case.name}: {stage} is not done for {context.key}; run `evergreen "
                f"run {stage} --use-case {context.use_case.name} --partition {context.key}`",
                keys=(context.key,),
            )
        found.append(Input(stage, context.key, result.digest))
    return found


def compute(context: StageContext) -> Outcome:
    """Release the partition's candidate if it may be, as far as the option `phase` says (default:
    all the way).

    Raises: Conflict: the champion is not the one that the candidate was judged against; it must be
        judged again. Unavailable: no serving node has tried it in time. ArtefactError: a serving
        node has tried it and refuses it; what was served goes on.
    """
    decided = decide(context)
    if isinstance(decided, Outcome):
        return decided
    phase = context.options.get("phase", "all")
    if context.rehearsal:
        return _done(decided.model, context.records.routes.get(context.use_case.name))
    if phase in ("request", "all"):
        request_release(context, decided)
    if phase == "request":
        waiting = f"waiting for a serving node to try model {decided.model.version}"
        return Outcome(
            "failed",
            "",
            waiting,
            outputs={"error": "Unavailable", "version": decided.model.version},
        )
    if phase == "all":
        _await_nodes(context, float(context.options.get("wait", WAIT_SECONDS)))
    return finish_release(context, decided)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Mirror the routing row in the registry's aliases; where a kill came in between, this
    repairs them.
    """
    route = context.records.routes.get(context.use_case.name)
    done: dict[str, Any] = {"champion": route.champion, "generation": route.generation}
    if outcome.state == "done":
        done["aliases"] = mirror_aliases_of(context.settings, context.records, route)
    return done


def decide(context: StageContext) -> Candidate | Outcome:
    """Return the candidate of the partition, or why nothing is released; changes nothing.

    Raises:
        Conflict: it must be judged again, against the champion that there is now.
    """
    name, key = context.use_case.name, context.key
    if context.mode != "live":
        return _nothing(
            "skipped", f"{key} is recorded as {context.mode}: it is judged, never released"
        )
    if context.target != "deployed":
        return _nothing("skipped", f"{key} has the target {context.target}, not deployed")
    refusal = not_passed(context.result("evaluate_model"))
    if refusal is not None:
        return _nothing("skipped", refusal)
    packaged = context.result("package_model")
    if packaged is None or packaged.state != "done":
        return _nothing(
            "skipped",
            f"it is not packaged: {packaged.reason if packaged else 'the bento stage has not run'}",
        )
    return _decide_against(context, judged_model(context), context.records.routes.get(name))


def _decide_against(context: StageContext, model: Model, route: Route) -> Candidate | Outcome:
    """Compare the candidate with what serves, what is held and what is on its way."""
    name, key = context.use_case.name, context.key
    if route.champion == model.version:
        return _done(model, route)
    if model.model_digest in route.held:
        hint = f"`evergreen rollback {name} --release {model.version}` lifts it"
        return _nothing(
            "held", f"model {model.version} was rolled back and its digest is on hold; {hint}"
        )
    if _released_before(context, model):
        return _done(
            model, route, f"it was released, and model {route.champion} has replaced it since"
        )
    champion = (
        context.records.models.get(name, route.champion) if route.champion is not None else None
    )
    if champion is not None and champion.model_digest == model.model_digest:
        return _done(
            model, route, f"it equals the champion, model {champion.version}: nothing to release"
        )
    if route.watermark is not None and route.watermark > key:
        return _nothing(
            "skipped",
            f"{route.watermark} is live already; an older partition never replaces a newer one",
        )
    coming = (
        context.records.models.get(name, route.challenger)
        if route.challenger not in (None, model.version)
        else None
    )
    if coming is not None and coming.partition > key:
        return _nothing(
            "skipped", f"model {coming.version} of the newer {coming.partition} is being released"
        )
    judged = _judged(context, model)
    if min(model.generation, judged.generation) < route.rollback_generation:
        return _nothing(
            "held",
            f"model {model.version} was trained or judged before the last rollback; train a new "
            "candidate",
        )
    if route.champion != judged.opponent:
        raise Conflict(
            f"{name} {key}: model {model.version} was judged against {_named(judged.opponent)}, "
            f"but {_named(route.champion)} serves; judge it again: `evergreen run evaluate_model "
            f"--use-case {name} --partition {key}`",
            judge_again=(model.version, route.generation),
        )
    return judged


def request_release(context: StageContext, candidate: Candidate) -> Route:
    """Name the candidate as challenger in the routing row, by compare-and-set; it is there
    already: nothing happens.
    """
    name, model = context.use_case.name, candidate.model
    route = context.records.routes.get(name)
    if route.challenger == model.version:
        return route
    return context.records.routes.change(
        name,
        set={"challenger": model.version, "step": 0, "weight": 0.0},
        entry=_entry(context, "release.requested", model, {}),
        expect_generation=route.generation,
        expect_champion=candidate.opponent,
        judged_generation=candidate.generation,
    )


def observed(context: StageContext) -> Readiness:
    """Return what the serving nodes say of the partition's challenger."""
    name = context.use_case.name
    return readiness(context.records.routes.get(name), context.records.nodes.of(name))


def finish_release(context: StageContext, candidate: Candidate) -> Outcome:
    """Make the challenger champion, if a node has tried it and nothing has moved on; then wait
    until it is served.
    """
    name, model = context.use_case.name, candidate.model
    route = context.records.routes.get(name)
    found = readiness(route, context.records.nodes.of(name))
    if route.challenger != model.version:
        raise Conflict(
            f"{name} {context.key}: model {model.version} is no longer being released; look at "
            f"`evergreen status {name}`"
        )
    if found.state == "waiting":
        raise Unavailable(
            f"{name} {context.key}: model {model.version} is not released: {found.reason}"
        )
    if found.state == "failed":
        _withdraw(context, candidate, route, found.reason)
        raise ArtefactError(
            f"{name} {context.key}: model {model.version} is not released: {found.reason}; what "
            "was served goes on"
        )
    entry = _entry(
        context,
        "release.promoted",
        model,
        {"judged_against": candidate.opponent, "previous": route.champion},
    )
    route = context.records.routes.change(
        name,
        set={
            "champion": model.version,
            "previous": _last_good(context, route),
            "challenger": None,
            "step": 0,
            "weight": 0.0,
        },
        entry=entry,
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
    if not _wait(lambda: _served(context.records, route), SERVED_SECONDS):
        log.warning("%s: no node reports yet that it serves model %d", name, model.version)
    return _done(model, route)


def _await_nodes(context: StageContext, seconds: float) -> None:
    """Wait for the nodes' answer, saying at once for what; where no node gives a sign of life
    there is no answer to wait for.
    """
    found = observed(context)
    if found.state != "waiting":
        return
    log.warning("%s %s: %s; waiting", context.use_case.name, context.key, found.reason)
    if not context.records.nodes.of(context.use_case.name):
        _wait(
            lambda: bool(context.records.nodes.of(context.use_case.name)),
            min(seconds, NODE_SECONDS),
        )
    if context.records.nodes.of(context.use_case.name):
        _wait(lambda: observed(context).state != "waiting", seconds)


def _judged(context: StageContext, model: Model) -> Candidate:
    """Return the candidate as the partition's verdict has it, or as the digest's first live
    judgement has it.
    """
    evaluation = context.result("evaluate_model")
    outputs = evaluation.outputs if evaluation is not None else {}
    if "opponent" in outputs and outputs.get("generation") is not None:
        return Candidate(model, outputs["opponent"], int(outputs["generation"]))
    recorded = context.records.opponents.get(context.use_case.name, model.model_digest, mode="live")
    if recorded is None:
        raise Conflict(
            f"{context.use_case.name} {context.key}: model {model.version} was never judged live; "
            "run its evaluation again"
        )
    return Candidate(model, recorded.version, recorded.generation)


def _released_before(context: StageContext, model: Model) -> bool:
    mine = context.result(NAME)
    return (
        mine is not None and mine.state == "done" and mine.outputs.get("released") == model.version
    )


def _last_good(context: StageContext, route: Route) -> int | None:
    """Return the champion that is replaced, unless it is on hold; then the one that was good
    before it.
    """
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
    context.records.routes.change(
        context.use_case.name,
        set={"challenger": None, "step": 0, "weight": 0.0},
        entry=_entry(context, "release.withdrawn", candidate.model, {"reason": reason}),
        expect_generation=route.generation,
    )


def _served(records: Records, route: Route) -> bool:
    return any(
        report.generation >= route.generation and report.detail.get("champion") == route.champion
        for report in records.nodes.of(route.use_case)
    )


def _wait(there: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _done(model: Model, route: Route, reason: str = "") -> Outcome:
    outputs = {
        "champion": route.champion,
        "generation": route.generation,
        "version": model.version,
        "released": model.version,
    }
    return Outcome("done", model.model_digest, reason, outputs=outputs)


def _nothing(state: Literal["skipped", "held"], reason: str) -> Outcome:
    return Outcome(state, _WITHOUT_MODEL, reason)


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


def _named(version: int | None) -> str:
    return "nobody" if version is None else f"model {version}"


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    memoised=False,  # the routing row is looked at every time
)
