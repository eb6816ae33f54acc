"""How well one feature tells the outcome by itself, either way and whatever its kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.training import feature_auc, leaks
from tests.builders.judging import visits_frame, visits_use_case


def test_honest_features_pass_the_leak_check() -> None:
    found = leaks.check(visits_frame(), visits_use_case())
    assert not found.refusals
    alone = found.feature_auc
    assert 0.6 < alone["income"] < 0.8
    assert 0.5 <= alone["region"] < 0.65


def test_a_text_with_many_values_that_say_nothing_is_no_leak() -> None:
    generator = np.random.default_rng(3)
    values = [f"r{number}" for number in generator.integers(0, 400, 1800)]
    many = visits_frame(lambda columns: columns.update(region=values))
    assert leaks.check(many, visits_use_case()).feature_auc["region"] < 0.6


# In pairs: halves are every second row, and each half needs both outcomes.
LABELS = np.array([0.0, 0.0, 1.0, 1.0] * 100)


@pytest.mark.parametrize(
    ("values", "auc"),
    [
        (LABELS, 1.0),
        (-LABELS, 1.0),
        ([None if label else 3.0 for label in LABELS], 1.0),
        ([5.0] * 400, 0.5),
        ([None] * 400, 0.5),
        ([float("inf") if label else float("-inf") for label in LABELS], 1.0),
        ([(3.0 if label else 1.0) + 4 * (row % 5) for row, label in enumerate(LABELS)], 1.0),
    ],
    ids=["equal", "opposite", "by absence", "constant", "null", "infinite", "up and down"],
)
def test_numbers_rank_or_split_the_outcome(values: Any, auc: float) -> None:
    column = pa.chunked_array([pa.array(list(values), pa.float64())])
    assert feature_auc.auc_of_feature(column, LABELS) == pytest.approx(auc, abs=0.001)


def test_a_text_is_not_learnt_by_heart() -> None:
    texts = pa.chunked_array([pa.array([f"t{row}" for row in range(400)])])
    assert feature_auc.auc_of_feature(texts, LABELS) == 0.5
    told = pa.chunked_array([pa.array(["yes" if label else "no" for label in LABELS])])
    assert feature_auc.auc_of_feature(told, LABELS) == 1.0
