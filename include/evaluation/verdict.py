"""What the gate has said of a candidate: packaging and deployment ask here before they act."""

from __future__ import annotations

from include.errors import ArtefactError
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.records.records import Model, StageResult


def judgement(context: StageContext) -> StageResult:
    """Return the record of the partition's judgement, also of one that could not be reached.

    Raises:
        MissingPartition: it is not judged.
    """
    result = context.result("evaluate_model")
    if result is None or result.state != "unreadable":
        (result,) = context.need("evaluate_model", [context.key])
    return result


def not_passed(evaluation: StageResult | None) -> str | None:
    """Return why the gate does not let the candidate pass, or None if it does."""
    if evaluation is None or evaluation.state != "done":
        return (
            f"it is not judged: {evaluation.reason if evaluation else 'evaluate_model has not run'}"
        )
    outputs = EvaluationOutputs.of(evaluation)
    if outputs.verdict == "pass":
        return None
    reasons = "; ".join(outputs.reasons or ["no reason recorded"])
    return f"the verdict is {outputs.verdict}: {reasons}"


def judged_model(context: StageContext) -> Model:
    """Return the model that the partition's verdict is about.

    Raises:
        ArtefactError: it is not on record.
    """
    evaluation = context.result("evaluate_model")
    version = None if evaluation is None else optional(EvaluationOutputs.of(evaluation).version)
    model = None if version is None else context.records.models.get(context.use_case.name, version)
    if model is None:
        raise ArtefactError(
            f"{context.use_case.name} {context.key}: the judged model {version} is not on record; "
            "train the partition again"
        )
    return model
