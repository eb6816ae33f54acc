"""What a partition may release: its judged and packaged candidate, or the reason why nothing is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from msgspec import UNSET

from include.errors import Conflict
from include.evaluation.verdict import judged_model, not_passed
from include.models.signing import refuse_release
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.release_outputs import DeploymentOutputs
from include.pipeline.stage import Outcome, StageContext
from include.records.records import Model, Route

STAGE_NAME = "deploy_model"
_WITHOUT_MODEL = "sha256:" + hashlib.sha256(b"nothing to release").hexdigest()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be released.

    `opponent` is the version that it was judged against (None: nobody served), `generation` the
    generation of the routing row in which it was judged.
    """

    model: Model
    opponent: int | None
    generation: int


def decide_release(context: StageContext) -> Candidate | Outcome:
    """Return the candidate of the partition, or why nothing is released; changes nothing.

    Raises:
        Conflict: it must be judged again, against the champion that there is now; or it is not
            signed by a key that still releases.
    """
    name, key = context.use_case.name, context.key
    if context.mode != "live":
        reason = f"{key} is recorded as {context.mode}: it is judged, never released"
        return nothing_released("skipped", reason)
    if context.target != "deployed":
        return nothing_released("skipped", f"{key} has the target {context.target}, not deployed")
    refusal = not_passed(context.result("evaluate_model"))
    if refusal is not None:
        return nothing_released("skipped", refusal)
    packaged = context.result("package_model")
    if packaged is None or packaged.state != "done":
        reason = packaged.reason if packaged else "package_model has not run"
        return nothing_released("skipped", f"it is not packaged: {reason}")
    return _compare_with_route(context, judged_model(context), context.records.routes.get(name))


def released(model: Model, route: Route, reason: str = "") -> Outcome:
    """Return the outcome of a candidate that is, or was, released."""
    outputs = DeploymentOutputs(
        champion=route.champion,
        generation=route.generation,
        version=model.version,
        released=model.version,
    )
    return Outcome("done", model.model_digest, reason, outputs=outputs.plain())


def nothing_released(state: Literal["skipped", "held"], reason: str) -> Outcome:
    """Return the outcome where nothing is released, for a reason that a person may want to know."""
    return Outcome(state, _WITHOUT_MODEL, reason)


def _compare_with_route(context: StageContext, model: Model, route: Route) -> Candidate | Outcome:
    """Compare the candidate with what serves, what is held and what is on its way.

    The order matters: what serves, or has served, is done whatever is held or newer by now; a hold
    stands before all that a new judgement could mend.
    """
    name, key = context.use_case.name, context.key
    if route.champion == model.version:
        return released(model, route)
    if model.model_digest in route.held:
        hint = f"`evergreen release lift {name} {model.version}` lifts it"
        return nothing_released(
            "held", f"model {model.version} was rolled back and its digest is on hold; {hint}"
        )
    if _was_released(context, model):
        reason = f"it was released, and model {route.champion} has replaced it since"
        return released(model, route, reason)
    champion = _model(context, route.champion)
    if champion is not None and champion.model_digest == model.model_digest:
        reason = f"it equals the champion, model {champion.version}: nothing to release"
        return released(model, route, reason)
    if route.watermark is not None and route.watermark > key:
        return nothing_released(
            "skipped",
            f"{route.watermark} is live already; an older partition never replaces a newer one",
        )
    coming = _model(context, route.challenger if route.challenger != model.version else None)
    if coming is not None and coming.partition > key:
        return nothing_released(
            "skipped", f"model {coming.version} of the newer {coming.partition} is being released"
        )
    waiting = context.records.releases.waiting(name)
    if waiting is not None and waiting.partition > key:
        return nothing_released(
            "skipped", f"model {waiting.challenger} of the newer {waiting.partition} waits"
        )
    candidate = _as_judged(context, model)
    if min(model.generation, candidate.generation) < route.rollback_generation:
        return nothing_released(
            "held",
            f"model {model.version} was trained or judged before the last rollback; train a new "
            "candidate",
        )
    if route.champion != candidate.opponent:
        raise Conflict(
            f"{name} {key}: model {model.version} was judged against "
            f"{_describe(candidate.opponent)}, but {_describe(route.champion)} serves; judge it "
            f"again: `evergreen run evaluate_model --use-case {name} --partition {key}`",
            judge_again=(model.version, route.generation),
        )
    if route.challenger != model.version:  # a release that has begun goes on when its key ends
        refuse_release(context.settings, model, context.started)
    return candidate


def _as_judged(context: StageContext, model: Model) -> Candidate:
    """Return the candidate as the partition's verdict has it, else as its digest was judged first.

    Raises:
        Conflict: it was never judged live.
    """
    evaluation = context.result("evaluate_model")
    outputs = EvaluationOutputs() if evaluation is None else EvaluationOutputs.of(evaluation)
    if outputs.opponent is not UNSET and isinstance(outputs.generation, int):
        return Candidate(model, outputs.opponent, outputs.generation)
    recorded = context.records.opponents.get(context.use_case.name, model.model_digest, mode="live")
    if recorded is None:
        raise Conflict(
            f"{context.use_case.name} {context.key}: model {model.version} was never judged live; "
            "run its evaluation again"
        )
    return Candidate(model, recorded.version, recorded.generation)


def _was_released(context: StageContext, model: Model) -> bool:
    """Tell whether the partition has released the model, and nobody has taken it back since.

    What was taken back, and lifted from its hold by a person, is a challenger again.
    """
    result = context.result(STAGE_NAME)
    return (
        result is not None
        and model.state == "released"
        and result.state == "done"
        and DeploymentOutputs.of(result).released == model.version
    )


def _model(context: StageContext, version: int | None) -> Model | None:
    return None if version is None else context.records.models.get(context.use_case.name, version)


def _describe(version: int | None) -> str:
    return "nobody" if version is None else f"model {version}"
