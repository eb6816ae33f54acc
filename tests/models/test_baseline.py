"""The baseline: it learns what is linear, from the rows it may use, with gaps and categories."""

from __future__ import annotations

import numpy as np
import pytest

from include.models import baseline as of_baseline
from include.models.baseline import baseline
from include.models.encoding import Feature, Schema
from include.models.metrics import auc

ROWS = 600
SCHEMA = Schema(
    "u",
    "f",
    (Feature("x", "float64"), Feature("c", "string", {"a": 0, "b": 1}, missing=2, unknown=3)),
    1.0,
    0.0,
    0.5,
    "",
)


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return matrix, labels and which rows are used: the first two thirds."""
    generator = np.random.default_rng(1)
    number, category = generator.normal(size=ROWS), generator.integers(0, 2, ROWS)
    labels = (number + 2.0 * category + generator.normal(size=ROWS) > 1.0).astype(float)
    return np.column_stack([number, category]), labels, np.arange(ROWS) < 400


def test_a_number_and_a_category_are_both_learnt() -> None:
    matrix, labels, used = rows()
    scores = baseline(matrix, labels, used, ~used, SCHEMA)
    assert scores.shape == (200,)
    assert auc(labels[~used], scores) > 0.85
    number_alone = baseline(matrix[:, :1], labels, used, ~used, _first_feature())
    assert auc(labels[~used], number_alone) < auc(labels[~used], scores) - 0.05


def test_a_missing_number_is_information_of_its_own() -> None:
    matrix, labels, used = rows()
    matrix[:, 0] = np.where(labels == 1.0, np.nan, 0.0)
    assert auc(labels[~used], baseline(matrix, labels, used, ~used, SCHEMA)) == 1.0


def test_rows_that_are_not_used_teach_nothing() -> None:
    matrix, labels, used = rows()
    turned = np.where(used, labels, 1 - labels)
    np.testing.assert_array_equal(
        baseline(matrix, labels, used, ~used, SCHEMA),
        baseline(matrix, turned, used, ~used, SCHEMA),
    )


def test_where_nothing_varies_all_get_the_rate_of_the_outcome() -> None:
    matrix, labels, used = rows()
    scores = baseline(np.zeros_like(matrix), labels, used, ~used, SCHEMA)
    assert scores.tolist() == pytest.approx([labels[used].mean()] * 200)
    assert baseline(matrix, labels, used, np.zeros(ROWS, dtype=bool), SCHEMA).size == 0


def _first_feature() -> Schema:
    return Schema("u", "f", SCHEMA.features[:1], 1.0, 0.0, 0.5, "")


def test_both_solvers_find_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, labels, used = rows()
    by_newton = baseline(matrix, labels, used, ~used, SCHEMA)
    monkeypatch.setattr(of_baseline, "NEWTON_COLUMNS", 0)
    np.testing.assert_allclose(baseline(matrix, labels, used, ~used, SCHEMA), by_newton, atol=1e-4)
