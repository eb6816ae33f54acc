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
    if pa.types.is_string(column.type):
        scores = _outcome_means(column.to_pylist(), labels)
    else:
        scores = floats(column)
        # Infinities too become numbers; missing is the smallest.
        filled = np.nan_to_num(scores, nan=-np.finfo(np.float64).max)
        missing = np.isnan(scores).astype(np.float64)
        ranges = np.searchsorted(
            np.unique(np.quantile(filled, np.linspace(0, 1, RANGES + 1), method="lower")), filled
        )
        ranged = metrics.auc(labels, _outcome_means(ranges.tolist(), labels))
        return max(
            _either_way(labels, filled),
            _either_way(labels, missing),
            ranged if ranged == ranged else 0.5,  # noqa: PLR0124 - NaN
        )
    return _either_way(labels, scores)


def _either_way(labels: Numbers, scores: Numbers) -> float:
    """Return the AUC of scores, or of their opposite; 0.5 where it is not computable."""
    value = metrics.auc(labels, scores)
    return max(value, 1 - value) if value == value else 0.5  # noqa: PLR0124 - NaN


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
