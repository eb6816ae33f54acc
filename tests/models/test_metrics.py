"""AUC, its paired interval, calibration: against scikit-learn, by hand and by resampling."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest

from include.config.use_case_model import Gates
from include.evaluation import gate
from include.models import metrics
from include.models.metrics import Interval


def sample(
    count: int = 3000, seed: int = 3
) -> tuple[metrics.Numbers, metrics.Numbers, metrics.Numbers]:
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=count)
    labels = (generator.random(count) < 1 / (1 + np.exp(-signal))).astype(float)
    first = 1 / (1 + np.exp(-(signal + 0.3 * generator.normal(size=count))))
    second = 1 / (1 + np.exp(-(signal + 1.0 * generator.normal(size=count))))
    return labels, first, second


def test_auc_equals_scikit_learn_with_ties() -> None:
    from sklearn.metrics import roc_auc_score

    labels, first, _ = sample()
    for scores in (first, np.round(first, 1)):
        assert metrics.auc(labels, scores) == pytest.approx(
            roc_auc_score(labels, scores), abs=1e-12
        )


def test_auc_by_hand() -> None:
    assert metrics.auc(np.array([0.0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.9])) == 0.875


def test_paired_interval_agrees_with_resampling() -> None:
    labels, first, second = sample()
    found = metrics.auc_difference(labels, first, second)
    assert found.value == pytest.approx(
        metrics.auc(labels, first) - metrics.auc(labels, second), abs=1e-12
    )
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        rows = generator.integers(0, len(labels), len(labels))
        drawn.append(
            metrics.auc(labels[rows], first[rows]) - metrics.auc(labels[rows], second[rows])
        )
    half = 1.96 * float(np.std(drawn))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def test_interval_of_one_auc_agrees_with_resampling_and_stays_within_0_and_1() -> None:
    labels, first, _ = sample(1000)
    found = metrics.auc_interval(labels, first)
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        rows = generator.integers(0, len(labels), len(labels))
        drawn.append(metrics.auc(labels[rows], first[rows]))
    assert found.value == metrics.auc(labels, first)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * float(np.std(drawn)), rel=0.15)
    few = np.arange(24) % 2.0
    assert metrics.auc_interval(few, few + np.linspace(0, 1.01, 24)).high == 1.0
    assert math.isnan(metrics.auc_interval(few[:4], few[:4]).low)


def test_paired_interval_is_narrower_than_unpaired_and_zero_for_equal_scores() -> None:
    labels, first, _ = sample()
    assert metrics.auc_difference(labels, first, first) == Interval(0.0, 0.0, 0.0)
    shifted = metrics.auc_difference(labels, first, first + np.linspace(0, 1e-3, len(first)))
    assert shifted.high - shifted.low < 0.005


def delong(labels: metrics.Numbers, *both: metrics.Numbers) -> float:
    """Return half of DeLong's interval straight from its definition, over all pairs."""
    one, zero = labels == 1.0, labels == 0.0
    wins = [
        (scores[one][:, None] > scores[zero]) + 0.5 * (scores[one][:, None] == scores[zero])
        for scores in both
    ]
    gain = wins[0] - wins[1]
    variance = (
        gain.mean(axis=1).var(ddof=1) / one.sum() + gain.mean(axis=0).var(ddof=1) / zero.sum()
    )
    return 1.959963984540054 * math.sqrt(variance)


def test_the_interval_is_delongs_where_each_entity_has_one_row() -> None:
    labels, first, second = sample(400)
    first, second = np.round(first, 2), np.round(second, 2)
    for entities in (None, np.arange(400)[::-1].copy(), pa.array([f"e{n}" for n in range(400)])):
        found = metrics.auc_difference(labels, first, second, entities)
        assert found.high - found.value == pytest.approx(delong(labels, first, second), abs=1e-12)


def test_repeating_every_row_tells_nothing_more() -> None:
    labels, first, second = sample(400)
    once = metrics.auc_difference(labels, first, second, np.arange(400))
    again = [np.repeat(values, 10) for values in (labels, first, second, np.arange(400))]
    ten = metrics.auc_difference(*again)
    assert (ten.value, ten.low) == pytest.approx((once.value, once.low), abs=1e-9)
    blind = metrics.auc_difference(*again[:3])
    assert blind.high - blind.low < 0.35 * (ten.high - ten.low)


def test_entities_are_told_apart_whatever_their_type_order_and_chunks() -> None:
    labels, first, second = sample(900)
    codes = np.random.default_rng(1).integers(0, 90, 900)
    texts = pa.array([f"{code:05}" for code in codes])
    chunked = pa.chunked_array([texts.slice(0, 17), texts.slice(17)])
    found = {
        metrics.auc_difference(labels, first, second, kind) for kind in (codes, texts, chunked)
    }
    assert len(found) == 1
    order = np.random.default_rng(2).permutation(900)
    shuffled = metrics.auc_difference(labels[order], first[order], second[order], codes[order])
    assert shuffled.low == pytest.approx(found.pop().low, abs=1e-12)


def test_fewer_than_twenty_entities_are_a_hold_that_says_so() -> None:
    labels, first, second = sample(1000)
    for count, held in ((19, True), (20, False)):
        found = metrics.auc_difference(labels, first, second, np.arange(1000) % count)
        assert math.isnan(found.low) is held
        check = gate.not_worse("x", found, 0.9)
        assert check.outcome == ("hold" if held else "pass")
        assert ("19 entities" in check.reason) is held
    lone = np.where(labels == 1.0, 0, np.arange(1000))
    found = metrics.auc_difference(labels, first, second, lone)
    assert math.isnan(found.low)
    assert "outcome 1 is of one entity" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 10])
def test_the_interval_covers_the_truth_however_many_rows_an_entity_has(rows: int) -> None:
    generator = np.random.default_rng(20 + rows)
    entity = np.repeat(np.arange(100), rows)
    hits, blind, draws = 0, 0, 800
    for _ in range(draws):
        signal = generator.normal(size=100)[entity] + 0.5 * generator.normal(size=len(entity))
        labels = (generator.random(len(entity)) < 1 / (1 + np.exp(-signal))).astype(float)
        # two scores whose errors are drawn alike: the true difference is 0
        first, second = (
            signal + generator.normal(size=100)[entity] + 0.3 * generator.normal(size=len(entity))
            for _ in range(2)
        )
        found = metrics.auc_difference(labels, first, second, entity)
        hits += found.low <= 0 <= found.high
        found = metrics.auc_difference(labels, first, second)
        blind += found.low <= 0 <= found.high
    assert 0.93 <= hits / draws <= 0.97
    assert rows < 10 or blind / draws < 0.9


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([], []),
        ([1.0, 1.0], [0.1, 0.2]),
        ([0.0, 1.0], [0.1, math.nan]),
        ([0.0, 1.0], [0.1, math.inf]),
        ([0.0, math.nan], [0.1, 0.2]),
        ([0.0, 2.0], [0.1, 0.2]),
        ([0.0, 1.0], [0.1]),
    ],
)
def test_what_cannot_be_computed_is_nan(labels: list[float], scores: list[float]) -> None:
    one, two = np.array(labels), np.array(scores)
    for value in (metrics.auc, metrics.calibration_error, metrics.brier, metrics.log_loss):
        assert math.isnan(value(one, two))
    assert math.isnan(metrics.auc_difference(one, two, two).low)
    assert metrics.roc(one, two) == []
    assert metrics.calibration_curve(one, two) == []


def test_calibration_error_of_a_shifted_score() -> None:
    generator = np.random.default_rng(5)
    scores = generator.random(20_000) * 0.8
    labels = (generator.random(20_000) < scores).astype(float)
    assert metrics.calibration_error(labels, scores) < 0.01
    assert metrics.calibration_error(labels, scores + 0.1) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    "scores",
    [
        np.full(1000, 0.5),
        np.repeat([0.2, 0.8], 500),
        np.round(np.random.default_rng(1).random(1000), 1),
        np.random.default_rng(2).random(1000),
    ],
    ids=["constant", "two scores", "eleven scores", "no ties"],
)
def test_tied_scores_in_any_order_give_one_number(scores: metrics.Numbers) -> None:
    generator = np.random.default_rng(3)
    labels = np.sort((generator.random(1000) < scores).astype(float))  # as rows that come by time
    scores = np.sort(scores)
    curve = metrics.calibration_curve(labels, scores)
    assert sum(rows for _, _, rows in curve) == 1000
    means = [mean for mean, _, _ in curve]
    assert means == sorted(set(means)), "no score is in two bins"
    for _ in range(5):
        order = generator.permutation(1000)
        assert metrics.calibration_curve(labels[order], scores[order]) == curve
    constant = np.full(1000, 0.5)
    halves = np.repeat([0.0, 1.0], 500)
    assert metrics.calibration_error(halves, constant) == 0.0


def drawn(
    generator: np.random.Generator, each: int, off: float
) -> tuple[metrics.Numbers, metrics.Numbers]:
    """Return labels, so many of each class, and scores that are too high by `off` throughout."""
    # half of them 1: so many of each are a fair draw.
    chances = 0.1 + 0.8 * generator.random(each * 8)
    labels = (generator.random(each * 8) < chances).astype(float)
    rows = np.concatenate([np.flatnonzero(labels == one)[:each] for one in (0.0, 1.0)])
    return labels[rows], chances[rows] + off


@pytest.mark.slow
@pytest.mark.parametrize(("each", "off"), [(200, 0.0), (500, 0.1), (500, -0.1)])
def test_calibration_fails_models_that_are_off_and_no_others(each: int, off: float) -> None:
    """The limit is .05: a model that is right fails once in 20 at most, one off by .10 nine
    times of ten.
    """
    generator = np.random.default_rng(11)
    found = [gate.calibrated(*drawn(generator, each, off), 0.05, 7)[0].outcome for _ in range(100)]
    failed = found.count("fail") / len(found)
    assert failed <= 0.05 if off == 0 else failed >= 0.9


def test_the_errors_that_chance_gives_are_those_of_models_that_are_right() -> None:
    generator = np.random.default_rng(5)
    scores = np.append(np.round(generator.random(300), 2), [0.0, 1.0])
    by_chance = metrics.calibration_errors_by_chance(scores, 7)
    assert len(by_chance) == metrics.DRAWS
    assert (by_chance == metrics.calibration_errors_by_chance(scores[::-1].copy(), 7)).all()
    one_by_one = [
        metrics.calibration_error((generator.random(302) < scores).astype(float), scores)
        for _ in range(2000)
    ]
    assert by_chance.mean() == pytest.approx(np.mean(one_by_one), rel=0.05)
    assert by_chance.std() == pytest.approx(np.std(one_by_one), rel=0.1)


def test_many_rows_need_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(5).random(3000)
    monkeypatch.setattr(metrics, "BLOCK", 30_000_000)
    at_once = metrics.calibration_errors_by_chance(scores, 7, 50)
    for block in (1, 10_000, 3000 * 7):
        monkeypatch.setattr(metrics, "BLOCK", block)
        assert (metrics.calibration_errors_by_chance(scores, 7, 50) == at_once).all()


def test_as_good_as_the_yardstick_is_not_better() -> None:
    for value, outcome in ((0.0, "fail"), (1e-9, "pass"), (-0.1, "fail"), (math.nan, "hold")):
        assert (
            gate.above("over_baseline", "AUC over the logistic baseline", value, 0.0).outcome
            == outcome
        )
    labels, first, _ = sample()
    area = metrics.auc(labels, first)
    checks, _ = gate.absolute(labels, first, area, Gates(min_rows=1))
    assert "AUC over the logistic baseline" in [one.name for one in checks if one.outcome == "fail"]


def test_a_model_that_is_too_good_to_be_true_is_held() -> None:
    labels = np.repeat([0.0, 1.0], 1000)
    scores = np.clip(np.linspace(0, 1, 2000), 0.01, 0.99)
    checks, _ = gate.absolute(labels, scores, 0.7, Gates())
    assert gate.conclude(checks, enough=gate.enough_rows(labels, 10)) != "pass"
    (held,) = [one for one in checks if one.outcome == "hold"]
    assert "AUC is 1.0000, above gates.max_auc (0.98)" in held.reason
    checks, _ = gate.absolute(labels, scores, 0.7, Gates(max_auc=1.0))
    assert not [one for one in checks if one.outcome == "hold"]


def test_roc_runs_from_corner_to_corner_and_rises() -> None:
    labels, first, _ = sample()
    points = metrics.roc(labels, first)
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert points == sorted(points)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    assert area == pytest.approx(metrics.auc(labels, first), abs=2e-3)


def test_a_number_that_is_missing_or_nan_is_a_hold_never_a_pass() -> None:
    labels, first, _ = sample()
    wrong = first.copy()
    wrong[7] = math.nan
    for scores, baseline in ((wrong, 0.5), (first, None), (first, math.nan)):
        checks, _ = gate.absolute(labels, scores, baseline, Gates(min_rows=1))
        assert gate.conclude(checks, enough=gate.enough_rows(labels, 1)) == "hold"
    assert gate.not_worse("x", Interval(math.nan, math.nan, math.nan), 0.01).outcome == "hold"
    assert gate.censored(None, 0.5).outcome == "hold"
    assert gate.censored(math.nan, 0.5).outcome == "hold"


def test_too_few_rows_hold_even_where_a_number_fails() -> None:
    labels, first, _ = sample(200)
    checks, _ = gate.absolute(labels, 1 - first, 0.5, Gates())
    assert any(check.outcome == "fail" for check in checks)
    assert gate.conclude(checks, enough=gate.enough_rows(labels, 500)) == "hold"
    assert gate.conclude(checks, enough=gate.enough_rows(labels, 10)) == "fail"


@pytest.mark.parametrize(
    ("low", "outcome"), [(-0.0101, "fail"), (-0.01, "fail"), (-0.0099, "pass"), (0.2, "pass")]
)
def test_the_lower_end_must_be_above_the_margin(low: float, outcome: str) -> None:
    assert gate.not_worse("x", Interval(low + 0.01, low, low + 0.02), 0.01).outcome == outcome
