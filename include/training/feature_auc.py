"""How well one feature tells the outcome by itself, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from include.models import metrics
from include.models.matrix import floats
from include.models.metrics import Numbers

RANGES = 64  # quantiles of a number, each of which counts as a category


def auc_of_feature(column: pa.ChunkedArray, labels: Numbers) -> float:
    """Return how well a feature ranks the outcome, or splits it; missing is a value of its own.

    Text, and numbers in ranges (the outcome may follow a number down and up again), count by the
    mean outcome of other rows.
    """
    return score_by_feature(column, labels)[0]


def score_by_feature(column: pa.ChunkedArray, labels: Numbers) -> tuple[float, Numbers]:
    """Return the AUC of a feature, and the scores of the rows that have it.

    A higher score means outcome 1 over all rows; over a part of them it may mean the opposite.
    """
    if pa.types.is_string(column.type):
        return _either_way(labels, _outcome_means(column.to_pylist(), labels))
    scores = floats(column)
    # Infinities too become numbers; missing is the smallest.
    filled = np.nan_to_num(scores, nan=-np.finfo(np.float64).max)
    missing = np.isnan(scores).astype(np.float64)
    ranges = np.searchsorted(
        np.unique(np.quantile(filled, np.linspace(0, 1, RANGES + 1), method="lower")), filled
    )
    means = _outcome_means(ranges.tolist(), labels)
    ranged = metrics.auc(labels, means)
    return max(
        _either_way(labels, filled),
        _either_way(labels, missing),
        (ranged if ranged == ranged else 0.5, means),  # noqa: PLR0124 - NaN
        key=lambda scored: scored[0],
    )


def _either_way(labels: Numbers, scores: Numbers) -> tuple[float, Numbers]:
    """Return the AUC of scores, or of their opposite, and which it is of.

    It is 0.5 where it is not computable.
    """
    value = metrics.auc(labels, scores)
    if value != value:  # noqa: PLR0124 - NaN
        return 0.5, scores
    return (value, scores) if value >= 0.5 else (1 - value, -scores)


def _outcome_means(values: Sequence[object], labels: Numbers) -> Numbers:
    """Score each half of the rows by the mean outcome of their value in the other half.

    So nothing is learnt by heart. Means are smoothed by one row of the mean of all.
    """
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    encoded = np.array([codes[value] for value in values])
    half = np.arange(len(labels)) % 2 == 0
    base = float(labels.mean())
    scores = np.empty(len(labels))
    for scored, learnt in ((half, ~half), (~half, half)):
        sums = np.bincount(encoded[learnt], weights=labels[learnt], minlength=len(codes))
        counts = np.bincount(encoded[learnt], minlength=len(codes))
        scores[scored] = ((sums + base) / (counts + 1))[encoded[scored]]
    return scores
