"""The gate's questions one by one: what passes, what fails, and what cannot be answered."""

from __future__ import annotations

import math

import numpy as np
import pytest

from include.evaluation import gate
from include.evaluation.gate import Check, Judgement
from include.models.metrics import Interval

LABELS = np.array([0.0] * 30 + [1.0] * 20)


def check(outcome: gate.Verdict, reason: str = "") -> Check:
    return Check("id", "name", 1.0, 1.0, outcome, reason)


@pytest.mark.parametrize(
    ("enough", "others", "verdict"),
    [
        ("pass", ["pass", "pass"], "pass"),
        ("pass", ["pass", "fail", "hold"], "fail"),
        ("pass", ["pass", "hold"], "hold"),
        ("hold", ["fail"], "hold"),
        ("hold", ["pass"], "hold"),
    ],
)
def test_a_fail_needs_enough_rows_and_a_pass_everything(
    enough: gate.Verdict, others: list[gate.Verdict], verdict: str
) -> None:
    assert gate.conclude([check(other) for other in others], enough=check(enough)) == verdict


def test_reasons_are_those_of_what_did_not_pass() -> None:
    checks = [check("pass", "no"), check("fail", "first"), check("hold", "second")]
    assert Judgement("fail", checks).reasons == ["first", "second"]


@pytest.mark.parametrize(("limit", "outcome"), [(20, "pass"), (21, "hold")])
def test_the_rarer_class_must_have_enough_rows(limit: int, outcome: str) -> None:
    found = gate.enough_rows(LABELS, limit)
    assert (found.value, found.outcome) == (20, outcome)


@pytest.mark.parametrize("share", [None, math.nan, 0.06])
def test_an_unknown_or_a_large_censored_share_is_a_hold(share: float | None) -> None:
    assert gate.censored(share, 0.05).outcome == "hold"
    assert gate.censored(0.05, 0.05).outcome == "pass"


def test_reaching_a_limit_and_being_above_it_differ_at_the_limit() -> None:
    assert gate.at_least("auc", "AUC", 0.7, 0.7).outcome == "pass"
    assert gate.above("auc", "AUC", 0.7, 0.7).outcome == "fail"
    for ask in (gate.at_least, gate.above):
        assert ask("auc", "AUC", math.nan, 0.7).outcome == "hold"
        assert "AUC is 0.6000" in ask("auc", "AUC", 0.6, 0.7).reason


def test_a_model_that_is_too_good_is_held_and_its_carriers_are_named() -> None:
    found = gate.believable(0.99, 0.98, ["duration", "paid"])
    assert found.outcome == "hold"
    assert "(duration, paid tell the most)" in found.reason
    assert gate.believable(0.98, 0.98).outcome == "pass"
    assert gate.believable(math.nan, 0.98).outcome == "hold"


def test_scores_that_are_chances_pass_and_others_fail() -> None:
    generator = np.random.default_rng(1)
    scores = generator.random(4000)
    labels = (generator.random(4000) < scores).astype(float)
    right, by_chance = gate.calibrated(labels, scores, 0.02, 7)
    assert right.outcome == "pass"
    assert 0 < by_chance < 0.03
    assert gate.calibrated(labels, scores / 2, 0.02, 7)[0].outcome == "fail"
    low = gate.calibrated(labels, scores / 2, 0.02, 7)[0].reason
    assert "The scores say 24.9% on average and 48.4% of" in low
    assert "less frequent among the rows it learned from" in low
    # Scores that are only too bold say the right share.
    bold = gate.calibrated(labels, (scores > 0.5).astype(float), 0.02, 7)[0]
    assert (bold.outcome, "The scores say" in bold.reason) == ("fail", False)
    unknown, nothing = gate.calibrated(np.ones(4), np.ones(4), 0.02, 7)
    assert unknown.outcome == "hold"
    assert math.isnan(nothing)


@pytest.mark.parametrize(
    ("low", "outcome"), [(-0.009, "pass"), (-0.01, "fail"), (-0.2, "fail"), (math.nan, "hold")]
)
def test_the_lower_end_must_lie_above_the_margin(low: float, outcome: str) -> None:
    found = gate.not_worse("difference", Interval(0.0, low, 0.1, "too few entities"), 0.01)
    assert found.outcome == outcome
    assert ("too few entities" in found.reason) is (outcome == "hold")


def test_a_check_is_recorded_with_finite_numbers() -> None:
    recorded = Check("auc", "AUC", math.nan, 0.7, "hold", "why").recorded()
    assert (recorded.value, recorded.passed, recorded.outcome) == (None, None, "hold")
    whole = Check("mature_rows", "rows", 20, 20, "pass").recorded()
    assert isinstance(whole.value, int), "a count stays a count"
    assert whole.passed is True
