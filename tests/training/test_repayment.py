"""The shipped SQL, splits and training on the simulated portfolio: how much of the truth a model
recovers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from include.models import lightgbm_fitting as fitting
from include.models import matrix
from include.models.metrics import auc
from include.training import splits
from tests.builders.portfolio_frames import frame, repayment

CUSTOMERS, FIRST, DAYS = 3_000, 120, 57  # as many days as are mature in the use case's window of 90
SHIFT = 190


def parts_of(rows: pa.Table) -> np.ndarray:
    """Split the rows as training does."""
    split, moments = (
        repayment().training.split,
        rows.column("event_timestamp").cast(pa.int64()).to_numpy(),
    )
    how = splits.boundaries(moments, split)
    return splits.assign(
        rows.column("account_id").to_pylist(), moments, split, repayment().training.seed, how
    )


def labels_and_truth(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    return rows.column("label").to_numpy(), rows.column("truth").to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_out_of_time_quality(tmp_path: Path, seed: int) -> None:
    rows = frame(tmp_path, seed=seed, customers=CUSTOMERS, first=FIRST, days=DAYS)
    parts = parts_of(rows)
    metrics = fitting.fit(rows, parts, repayment(), "test").metrics
    labels, truth = labels_and_truth(
        rows.filter(pa.array(parts == splits.PARTS.index(splits.EVALUATION)))
    )
    assert len(labels) > 3_000
    assert 0.75 <= labels.mean() <= 0.85
    assert 0.89 <= auc(labels, truth) <= 0.91
    assert metrics["evaluation_auc"] >= 0.86
    assert metrics["evaluation_auc"] <= auc(labels, truth), (
        "a model above the truth has seen the outcome"
    )
    assert metrics["yardstick_auc"] <= metrics["evaluation_auc"] - 0.01


@pytest.mark.slow
def test_a_concept_shift_costs_the_old_model_but_not_the_truth(tmp_path: Path) -> None:
    rows = frame(tmp_path / "before", seed=1, customers=1_500, first=FIRST, days=40)
    after = frame(
        tmp_path / "after", seed=1, customers=1_500, first=SHIFT + 60, days=20, concept_shift=SHIFT
    )
    calm = frame(tmp_path / "calm", seed=1, customers=1_500, first=SHIFT + 60, days=20)
    predictor = fitting.fit(rows, parts_of(rows), repayment(), "test").predictor
    found = {}
    for name, table in (("after", after), ("calm", calm)):
        labels, truth = labels_and_truth(table)
        assert 0.88 <= auc(labels, truth) <= 0.92
        found[name] = auc(labels, predictor.many(matrix.columns_of(table, predictor.schema)))
    assert found["after"] < found["calm"] - 0.05
