"""Whether a candidate may be released at all, whatever its numbers: rollbacks say no."""

from __future__ import annotations

from dataclasses import dataclass

from include.pipeline.stage import StageContext
from include.records.records import Model


@dataclass(frozen=True)
class Clearance:
    """The answer by a stable id, which digests know it by, and the reason why not for people."""

    id: str
    reason: str = ""


CLEAR = Clearance("clear")


def release_clearance(context: StageContext, model: Model) -> Clearance:
    """Return whether a live candidate may be released; a backfill releases nobody, so it may."""
    if context.mode != "live":
        return CLEAR
    route = context.records.routes.get(context.use_case.name)
    if model.model_digest in route.held:
        reason = (
            f"{model.model_digest} was rolled back and is on hold; only `evergreen release "
            "lift` lifts it"
        )
        return Clearance("held", reason)
    if model.generation < route.rollback_generation:
        return Clearance(
            f"before_rollback/{model.generation}/{route.rollback_generation}",
            f"trained in generation {model.generation}, before the rollback of generation "
            f"{route.rollback_generation}; a newer partition trains the next candidate",
        )
    return CLEAR
