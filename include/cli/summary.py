"""What a person wants to know of a run besides its state: rows, AUC, verdict, reasons, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from include.pipeline.drift_outputs import DriftOutputs
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.execution import Report
from include.pipeline.release_outputs import DeploymentOutputs
from include.pipeline.training_outputs import TrainingOutputs

WORST = 3  # features of which a drift check's PSI is shown


def describe_run(report: Report) -> Iterator[str]:
    """Yield lines about one run, from what it recorded; none of a stage with no more to say."""
    describe = {
        "train_model": _training,
        "evaluate_model": _evaluation,
        "check_drift": _drift,
        "deploy_model": _deployment,
    }.get(report.stage)
    # A stage that failed recorded its error alone, and one under --force records nothing.
    if describe is not None and report.outputs and report.state != "failed":
        for line in describe(report):
            yield f"{report.stage} {report.key}: {line}"


def _training(report: Report) -> Iterator[str]:
    """Yield the rows of each part, and the candidate with its AUC."""
    outputs = TrainingOutputs.of(report)
    parts = {
        "train": outputs.counts.train,
        "tune": outputs.counts.tune,
        "evaluation": outputs.counts.evaluation,
    }
    rows = [
        f"{name} {part.rows} ({part.positive} of class 1)" for name, part in parts.items() if part
    ]
    if rows:
        yield f"rows {', '.join(rows)}"
    if outputs.model_version is not None:
        scores = ", ".join(
            f"{name.removesuffix('_auc').replace('_', ' ')} {_number(value)}"
            for name, value in (outputs.metrics or {}).items()
            if "tune" in name
        )
        yield f"candidate {outputs.model_version}" + (f", AUC of {scores}" if scores else "")


def _evaluation(report: Report) -> Iterator[str]:
    """Yield the AUC with its interval, against the opponent, and the verdict."""
    outputs = EvaluationOutputs.of(report)
    metrics = outputs.metrics or {}
    if metrics.get("auc") is not None:
        line = f"AUC {_number(metrics['auc'])}"
        if metrics.get("auc_low") is not None:
            line += f" ({_span(metrics, 'auc')})"
        if "opponent_auc" in metrics:
            line += f", model {outputs.opponent} {_number(metrics['opponent_auc'])}"
        if metrics.get("difference_low") is not None:
            line += f", difference {_number(metrics['difference'])}"
            line += f" ({_span(metrics, 'difference')})"
        yield line
    yield from _verdict(outputs)


def _drift(report: Report) -> Iterator[str]:
    """Yield the features that have moved most, and the verdict."""
    outputs = DriftOutputs.of(report)
    by_psi = sorted(
        ((one.psi, name) for name, one in outputs.features.items() if one.psi is not None),
        reverse=True,
    )
    if by_psi:
        shown = ", ".join(f"{name} {_number(psi)}" for psi, name in by_psi[:WORST])
        yield f"greatest PSI {shown}; the limit is {outputs.limit:g}"
    yield from _verdict(outputs)


def _deployment(report: Report) -> Iterator[str]:
    outputs = DeploymentOutputs.of(report)
    if isinstance(outputs.champion, int):
        yield f"champion is model {outputs.champion}, generation {outputs.generation}"


def _verdict(outputs: EvaluationOutputs | DriftOutputs) -> Iterator[str]:
    yield f"verdict {outputs.verdict}"
    yield from outputs.reasons
    if outputs.report:
        yield f"report {outputs.report}"


def _span(metrics: Mapping[str, Any], name: str) -> str:
    """Return a number's 95 % interval."""
    return f"{_number(metrics[f'{name}_low'])} to {_number(metrics[f'{name}_high'])}"


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
