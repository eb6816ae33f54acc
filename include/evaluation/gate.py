"""The gate's questions and what their answers come to.

A missing number, NaN or too few rows is a hold, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from include.config.use_case_model import Gates
from include.models import metrics as statistics
from include.models.metrics import Interval, Numbers
from include.pipeline import evaluation_outputs

Verdict = Literal["pass", "fail", "hold"]


@dataclass(frozen=True)
class Check:
    """One question of the gate; `outcome` hold means that it could not be answered.

    `id` is what records and digests know it by and never changes; `name` and `reason` are for
    people, and so is `remedy`: what may be written into the use case, and what it would mean.
    """

    id: str
    name: str
    value: float | None
    limit: float | None
    outcome: Verdict
    reason: str = ""
    remedy: str = ""

    def recorded(self) -> evaluation_outputs.Check:
        """Return the check as it is recorded: what is no finite number is null."""
        finite = self.value is not None and math.isfinite(self.value)
        return evaluation_outputs.Check(
            id=self.id,
            name=self.name,
            value=self.value if finite else None,
            limit=self.limit,
            passed={"pass": True, "fail": False, "hold": None}[self.outcome],
            reason=self.reason,
            remedy=self.remedy,
        )


@dataclass(frozen=True)
class Judgement:
    """The gate's verdict, with the checks and the metrics behind it."""

    verdict: Verdict
    checks: list[Check]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Why it is no pass, each with its remedy; empty on a pass."""
        return [
            f"{check.reason}. {check.remedy}" if check.remedy else check.reason
            for check in self.checks
            if check.outcome != "pass"
        ]


def conclude(checks: Sequence[Check], *, enough: Check) -> Verdict:
    """Return the verdict of all checks.

    With enough rows a failed check is a fail; all checks passed is a pass; the rest is a hold. Of
    few rows a check may fail by chance, so they give a hold, whatever it says.
    """
    everything = [enough, *checks]
    if enough.outcome == "pass" and any(check.outcome == "fail" for check in checks):
        return "fail"
    return "pass" if all(check.outcome == "pass" for check in everything) else "hold"


def enough_rows(labels: Numbers, limit: int) -> Check:
    """Ask for so many rows of each class."""
    name, positive = "mature rows of each class", int((labels == 1.0).sum())
    fewest = min(positive, len(labels) - positive)
    if fewest >= limit:
        return Check("mature_rows", name, fewest, limit, "pass")
    reason = (
        f"too few mature rows: {positive} of class 1 and {len(labels) - positive} of class "
        f"0, each class needs {limit}"
    )
    return Check("mature_rows", name, fewest, limit, "hold", reason)


def censored(share: float | None, limit: float) -> Check:
    """Ask that few decisions are past their delay without an outcome; more of them is a hold."""
    name = "share of censored decisions"
    if share is not None and share <= limit:
        return Check("censored_share", name, share, limit, "pass")
    shown = "unknown" if share is None or math.isnan(share) else f"{share:.1%}"
    reason = (
        f"decisions past their delay without a label are {shown} of all, the limit is {limit:.1%}"
    )
    return Check("censored_share", name, share, limit, "hold", reason)


def at_least(id: str, name: str, value: float, limit: float) -> Check:
    """Ask that a number reaches its limit."""
    if math.isnan(value):
        return Check(id, name, None, limit, "hold", f"{name} is not computable")
    reason = f"{name} is {value:.4f}, it must be at least {limit:g}"
    return (
        Check(id, name, value, limit, "pass")
        if value >= limit
        else Check(id, name, value, limit, "fail", reason)
    )


def above(id: str, name: str, value: float, limit: float) -> Check:
    """Ask that a number is above its limit: equal to it is not better."""
    if math.isnan(value):
        return Check(id, name, None, limit, "hold", f"{name} is not computable")
    reason = f"{name} is {value:.4f}, it must be above {limit:g}"
    passed = value > limit
    return Check(id, name, value, limit, "pass" if passed else "fail", "" if passed else reason)


def calibrated(labels: Numbers, scores: Numbers, limit: float, seed: int) -> tuple[Check, float]:
    """Ask for scores that are chances; return the check and the error that chance alone gives.

    The error of a model that is right is not 0 but what chance gives on so many rows. It fails
    where its error is more than 19 of 20 such models have, and more than the limit above theirs.
    """
    name, error = "calibration error", statistics.calibration_error(labels, scores)
    if math.isnan(error):
        return Check(
            "calibration_error", name, None, limit, "hold", f"{name} is not computable"
        ), math.nan
    draws = statistics.calibration_errors_by_chance(scores, seed)
    chance, usual_most = float(draws.mean()), float(np.quantile(draws, 0.95))
    most = max(usual_most, chance + limit)
    if error <= most:
        return Check("calibration_error", name, error, most, "pass"), chance
    reason = (
        f"{name} is {error:.4f}, it must be at most {most:.4f}: a model whose scores are right"
        f" shows {chance:.4f} on so many rows, and gates.max_calibration_error is {limit:g}"
    )
    mean, rate = float(scores.mean()), float(labels.mean())
    if is_shifted(mean - rate, error):
        before = "more" if mean > rate else "less"
        reason += (
            f". The scores say {mean:.1%} on average and {rate:.1%} of the outcomes are 1: they "
            f"were {before} frequent among the rows it learned from"
        )
    return Check("calibration_error", name, error, most, "fail", reason), chance


def is_shifted(in_the_large: float, error: float) -> bool:
    """Tell whether most of a calibration error is that all scores are too high, or too low."""
    return abs(in_the_large) > error / 2


def believable(value: float, limit: float, carriers: Sequence[str] = ()) -> Check:
    """Ask that the whole model is not too good to be true; where it is, a person has to look.

    `carriers` are the features that tell the most, named in the reason.
    """
    name = "AUC, too good to be true"
    if math.isnan(value):
        return Check("max_auc", name, None, limit, "hold", f"{name} is not computable")
    if value <= limit:
        return Check("max_auc", name, value, limit, "pass")
    shown = f" ({', '.join(carriers)} tell the most)" if carriers else ""
    reason = f"AUC is {value:.4f}, above gates.max_auc ({limit:g}): too good to be true{shown}"
    return Check("max_auc", name, value, limit, "hold", reason)


def not_worse(name: str, difference: Interval, margin: float) -> Check:
    """Ask that the lower end of the 95 % interval of the difference lies above `-margin`."""
    if math.isnan(difference.low):
        why = f": {difference.reason}" if difference.reason else ""
        return Check("opponent", name, None, -margin, "hold", f"{name} is not computable{why}")
    reason = (
        f"{name} is {difference.low:+.4f} (difference {difference.value:+.4f}, 95 % interval up "
        f"to {difference.high:+.4f}), it must be above {-margin:+.4f}"
    )
    outcome: Verdict = "pass" if difference.low > -margin else "fail"
    return Check(
        "opponent", name, difference.low, -margin, outcome, "" if outcome == "pass" else reason
    )


def absolute(
    labels: Numbers,
    scores: Numbers,
    yardstick_auc: float | None,
    gates: Gates,
    seed: int = 7,
    carriers: Sequence[str] = (),
) -> tuple[list[Check], dict[str, float]]:
    """Ask what needs no opponent; return the checks and the metrics.

    AUC, believable, calibration (`seed` draws what chance gives), better than the baseline.
    """
    baseline = math.nan if yardstick_auc is None else float(yardstick_auc)
    calibration, chance = calibrated(labels, scores, gates.max_calibration_error, seed)
    in_the_large = float(scores.mean() - labels.mean()) if len(labels) else math.nan
    metrics = {
        "auc": statistics.auc(labels, scores),
        "yardstick_auc": baseline,
        "calibration_error": statistics.calibration_error(labels, scores),
        "calibration_error_by_chance": chance,
        "calibration_in_the_large": in_the_large,
        "brier": statistics.brier(labels, scores),
        "log_loss": statistics.log_loss(labels, scores),
    }
    checks = [
        at_least("auc", "AUC", metrics["auc"], gates.min_auc),
        believable(metrics["auc"], gates.max_auc, carriers),
        calibration,
        above(
            "over_baseline",
            "AUC over the logistic baseline",
            metrics["auc"] - baseline,
            gates.over_baseline,
        ),
    ]
    return checks, metrics
