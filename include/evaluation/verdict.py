"""What the gate has said of a partition's candidate: what packaging and deployment ask before
they act.
"""

from __future__ import annotations

from include.errors import ArtefactError
from include.pipeline.stage import Work
from include.records.records import Model, StageResult


def judgement(work: Work) -> StageResult:
    """Return the record of the partition's judgement, also of one that could not be reached.

    Raises:
        MissingPartition: it is not judged.
    """
    result = work.result("evaluate_model")
    if result is None or result.state != "unreadable":
        (result,) = work.need("evaluate_model", [work.key])
    return result


def not_passed(evaluation: StageResult | None) -> str | None:
    """Return why the gate does not let the candidate pass, or None if it does."""
    if evaluation is None or evaluation.state != "done":
        return (
            f"it is not judged: {evaluation.reason if evaluation else 'evaluate_model has not run'}"
        )
    verdict = evaluation.outputs.get("verdict", "hold")
    if verdict == "pass":
        return None
    reasons = "; ".join(map(str, evaluation.outputs.get("reasons") or ["no reason recorded"]))
    return f"the verdict is {verdict}: {reasons}"


def judged_model(work: Work) -> Model:
    """Return the model that the partition's verdict is about.

    Raises:
        ArtefactError: it is not on record.
    """
    evaluation = work.result("evaluate_model")
    version = evaluation.outputs.get("version") if evaluation is not None else None
    model = (
        work.records.models.get(work.use_case.name, int(version)) if version is not None else None
    )
    if model is None:
        raise ArtefactError(
            f"{work.use_case.name} {work.key}: the judged model {version} is not on record; train "
            "the partition again"
        )
    return model
