"""What a person wants to know of a stage's run besides its state: parts and AUC, verdict,
reasons, and where the report is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from include.pipeline.execution import Report


def told(report: Report) -> Iterator[str]:
    """Yield lines about one run, from what it recorded."""
    lines = {
        "train_model": _training,
        "evaluate_model": _evaluation,
        "check_drift": _drift,
        "deploy_model": _deployment,
    }.get(report.stage)
    if lines is not None and report.outputs:
        for line in lines(report.outputs):
            yield f"{report.stage} {report.key}: {line}"


def _training(outputs: Mapping[str, Any]) -> Iterator[str]:
    counts, metrics = outputs.get("counts") or {}, outputs.get("metrics") or {}
    parts = {
        name: part for name, part in counts.items() if isinstance(part, Mapping) and "rows" in part
    }
    if parts:
        yield "rows " + ", ".join(
            f"{name} {part['rows']} ({part['positive']} of class 1)" for name, part in parts.items()
        )
    if outputs.get("version") is not None:
        shown = [
            f"{name.removesuffix('_auc').replace('_', ' ')} {_number(metrics[name])}"
            for name in metrics
            if "tune" in name
        ]
        yield f"candidate {outputs['version']}" + (f", AUC of {', '.join(shown)}" if shown else "")


def _evaluation(outputs: Mapping[str, Any]) -> Iterator[str]:
    metrics = outputs.get("metrics") or {}
    if metrics.get("auc") is not None:
        against = (
            f", model {outputs.get('opponent')} {_number(metrics['opponent_auc'])}"
            if "opponent_auc" in metrics
            else ""
        )
        low, high = metrics.get("difference_low"), metrics.get("difference_high")
        span = (
            f", difference {_number(metrics['difference'])} ({_number(low)} to {_number(high)})"
            if low is not None
            else ""
        )
        own = metrics.get("auc_low"), metrics.get("auc_high")
        interval = f" ({_number(own[0])} to {_number(own[1])})" if own[0] is not None else ""
        yield f"AUC {_number(metrics['auc'])}{interval}{against}{span}"
    yield from _verdict(outputs)


def _drift(outputs: Mapping[str, Any]) -> Iterator[str]:
    features = outputs.get("features") or {}
    worst = sorted(
        ((one["psi"], name) for name, one in features.items() if one.get("psi") is not None),
        reverse=True,
    )[:3]
    if worst:
        yield (
            f"greatest PSI {', '.join(f'{name} {_number(psi)}' for psi, name in worst)}; the "
            f"limit is {outputs.get('limit'):g}"
        )
    yield from _verdict(outputs)


def _verdict(outputs: Mapping[str, Any]) -> Iterator[str]:
    yield f"verdict {outputs.get('verdict')}"
    yield from outputs.get("reasons") or ()
    if outputs.get("report"):
        yield f"report {outputs['report']}"


def _deployment(outputs: Mapping[str, Any]) -> Iterator[str]:
    if outputs.get("champion") is not None:
        yield f"champion is model {outputs['champion']}, generation {outputs.get('generation')}"


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
