"""Whom a candidate is judged against.

Live, it is the champion at the first judgement, which reruns meet again; of a backfill it is the
model that was released from the newest older partition, so that wall time plays no part.
"""

from __future__ import annotations

from include.errors import EvergreenError
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.records.records import Model, Opponent, Route


def find_model(context: StageContext, version: int) -> Model:
    """Return a model of the use case.

    Raises:
        EvergreenError: it is not on record.
    """
    model = context.records.models.get(context.use_case.name, version)
    if model is None:
        raise EvergreenError(
            f"{context.use_case.name} version {version} is not on record; run train_model for "
            f"{context.key} again"
        )
    return model


def choose_opponent(context: StageContext, model: Model) -> Opponent:
    """Return the opponent on record from the first judgement, else by the rule of the mode."""
    route = context.records.routes.get(context.use_case.name)
    recorded = _recorded_opponent(context, model)
    if recorded is not None and not _is_outdated(context, model, recorded, route):
        return recorded
    version = route.champion if context.mode == "live" else _released_before(context)
    return Opponent(
        context.use_case.name,
        model.model_digest,
        context.mode,
        version,
        route.generation,
        context.key,
        context.started,
    )


def _released_before(context: StageContext) -> int | None:
    """Return the version that was released from the newest older partition, if any was."""
    released = [
        (model.partition, model.version)
        for model in context.records.models.of(context.use_case.name)
        if model.state == "released" and model.partition < context.key
    ]
    return max(released)[1] if released else None


def _recorded_opponent(context: StageContext, model: Model) -> Opponent | None:
    """Return the opponent of this partition's first judgement.

    An equal model of another partition had an opponent of its own, which is none of this one's.
    """
    name, result = context.use_case.name, context.result("evaluate_model")
    if result is not None and result.state == "done" and result.mode == context.mode:
        outputs = EvaluationOutputs.of(result)
        if outputs.model_digest == model.model_digest:
            return Opponent(
                name,
                model.model_digest,
                context.mode,
                optional(outputs.opponent),
                optional(outputs.generation) or 0,
                context.key,
                result.started_at,
            )
    opponent = context.records.opponents.get(name, model.model_digest, mode=context.mode)
    return opponent if opponent is not None and opponent.partition == context.key else None


def _is_outdated(context: StageContext, model: Model, recorded: Opponent, route: Route) -> bool:
    """Tell whether a live candidate must be judged again, against the champion of now.

    So it is where it passed, could still be released, and another champion serves; and where it
    was judged before a rollback, and a person has lifted the hold since.
    """
    if context.mode != "live" or model.version == route.champion:
        return False
    if recorded.generation < route.rollback_generation <= model.generation:
        return True
    result = context.result("evaluate_model")
    passed = result is not None and EvaluationOutputs.of(result).verdict == "pass"
    overtaken = route.watermark is not None and route.watermark > context.key
    releasable = passed and model.state != "released" and not overtaken
    return releasable and recorded.version != route.champion
