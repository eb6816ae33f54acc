"""The gate's questions and what their answers come to. A missing number, NaN or too few rows is a hold, never a pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from include import statistics
from include.statistics import Interval, Numbers
from include.usecase import Gates

Verdict = Literal["pass", "fail", "hold"]


@dataclass(frozen=True)
class Check:
    """One question of the gate; `outcome` hold means that it could not be answered."""

    name: str
    value: float | None
    limit: float | None
    outcome: Verdict
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `passed` is None on a hold."""
        passed = {"pass": True, "fail": False, "hold": None}[self.outcome]
        value = None if self.value is None or not math.isfinite(self.value) else self.value
        return {"name": self.name, "value": value, "limit": self.limit, "passed": passed, "reason": self.reason}


@dataclass(frozen=True)
class Judgement:
    """What the gate came to, with the numbers behind it."""

    verdict: Verdict
    checks: list[Check]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Why it is no pass; empty on a pass."""
        return [check.reason for check in self.checks if check.outcome != "pass"]


def conclude(checks: Sequence[Check], *, enough: Check) -> Verdict:
    """Return the verdict: with enough rows a failed check is a fail; all checks passed is a pass; anything else a hold."""
    everything = [enough, *checks]
    if enough.outcome == "pass" and any(check.outcome == "fail" for check in checks):
        return "fail"
    return "pass" if all(check.outcome == "pass" for check in everything) else "hold"


def enough_rows(labels: Numbers, limit: int) -> Check:
    """Ask for so many rows of each class."""
    name, positive = "mature rows of each class", int((labels == 1.0).sum())
    fewest = min(positive, len(labels) - positive)
    if fewest >= limit:
        return Check(name, fewest, limit, "pass")
    reason = f"too few mature rows: {positive} of class 1 and {len(labels) - positive} of class 0, each class needs {limit}"
    return Check(name, fewest, limit, "hold", reason)


def censored(share: float | None, limit: float) -> Check:
    """Ask that few decisions are past their delay without an outcome; more of them is a hold."""
    name = "share of censored decisions"
    if share is not None and share <= limit:
        return Check(name, share, limit, "pass")
    shown = "unknown" if share is None or math.isnan(share) else f"{share:.1%}"
    return Check(
        name, share, limit, "hold", f"decisions past their delay without a label are {shown} of all, the limit is {limit:.1%}"
    )


def at_least(name: str, value: float, limit: float) -> Check:
    """Ask that a number reaches its limit."""
    if math.isnan(value):
        return Check(name, None, limit, "hold", f"{name} is not computable")
    reason = f"{name} is {value:.4f}, it must be at least {limit:g}"
    return Check(name, value, limit, "pass") if value >= limit else Check(name, value, limit, "fail", reason)


def at_most(name: str, value: float, limit: float) -> Check:
    """Ask that a number stays within its limit."""
    if math.isnan(value):
        return Check(name, None, limit, "hold", f"{name} is not computable")
    reason = f"{name} is {value:.4f}, it must be at most {limit:g}"
    return Check(name, value, limit, "pass") if value <= limit else Check(name, value, limit, "fail", reason)


def not_worse(name: str, difference: Interval, margin: float) -> Check:
    """Ask that the lower end of the 95 % interval of the difference lies above `-margin`."""
    if math.isnan(difference.low):
        why = f": {difference.reason}" if difference.reason else ""
        return Check(name, None, -margin, "hold", f"{name} is not computable{why}")
    reason = (
        f"{name} is {difference.low:+.4f} (difference {difference.value:+.4f}, 95 % interval up to {difference.high:+.4f}),"
        f" it must be above {-margin:+.4f}"
    )
    outcome: Verdict = "pass" if difference.low > -margin else "fail"
    return Check(name, difference.low, -margin, outcome, "" if outcome == "pass" else reason)


def absolute(labels: Numbers, scores: Numbers, yardstick_auc: float | None, gates: Gates) -> tuple[list[Check], dict[str, float]]:
    """Ask what needs no opponent: AUC, calibration, better than the yardstick; return the checks and the metrics."""
    yardstick = math.nan if yardstick_auc is None else float(yardstick_auc)
    metrics = {
        "auc": statistics.auc(labels, scores),
        "yardstick_auc": yardstick,
        "calibration_error": statistics.calibration_error(labels, scores),
        "brier": statistics.brier(labels, scores),
        "log_loss": statistics.log_loss(labels, scores),
    }
    checks = [
        at_least("AUC", metrics["auc"], gates.min_auc),
        at_most("calibration error", metrics["calibration_error"], gates.max_calibration_error),
        at_least("AUC over the logistic yardstick", metrics["auc"] - yardstick, gates.over_baseline),
    ]
    return checks, metrics
