"""Refuse features that cannot be right: null everywhere, ids, and those that alone know the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include import statistics
from include.errors import ConfigError
from include.fitting import labels_of
from include.free_text import hardly_repeats
from include.usecase import UseCase

MAX_ROWS = 100_000
MIN_ENTITIES = 50
RANGES = 64


def check(train: pa.Table, use_case: UseCase) -> dict[str, float]:
    """Return each feature's own AUC on the training rows (in either direction).

    Raises:
        ConfigError: a feature is null on every row, numbers or names its entities, or is too good to be true.
    """
    for name in use_case.trained_features:
        column = train.column(name)
        if column.null_count == len(column):
            raise ConfigError(
                f"feature {name!r} of {use_case.name} is null on all {len(column)} training rows; mend its SQL, its ttl or its"
                " source, or remove it from `features`"
            )
        if _is_id(train, name, use_case.entity.key):
            raise ConfigError(
                f"feature {name!r} of {use_case.name} is an id: it names its rows or entities and would be learnt by heart;"
                " put it under training.exclude or remove it"
            )
    if len(train) > MAX_ROWS:
        train = train.take(pa.array(np.linspace(0, len(train) - 1, MAX_ROWS).astype(np.int64)))
    labels = labels_of(train)
    alone = {name: _auc(train.column(name), labels) for name in use_case.trained_features}
    limit = use_case.gates.max_feature_auc
    leaks = [f"{name} ({value:.3f})" for name, value in alone.items() if value > limit]
    if leaks:
        raise ConfigError(
            f"{use_case.name}: the outcome leaks through {', '.join(leaks)}: alone it passes gates.max_feature_auc ({limit:g})."
            " Remove it from `features`, or raise the limit if it truly is known at the decision"
        )
    return alone


def _is_id(train: pa.Table, name: str, key: str) -> bool:
    """Tell whether a feature copies the key, counts its entities, or is a text that hardly ever repeats."""
    column, entities = train.column(name), train.column(key)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        return False
    known = pc.is_valid(column)
    column, entities = column.filter(known), entities.filter(known)
    values = pc.count_distinct(column).as_py()
    count = pc.count_distinct(entities).as_py()
    if count < MIN_ENTITIES:
        return False
    if kind == entities.type and pc.all(pc.equal(column, entities)).as_py():
        return True
    if pa.types.is_string(kind) and hardly_repeats(len(column), values):
        return True
    pairs = len(pa.table({"a": column, "b": entities}).group_by(["a", "b"]).aggregate([]))
    if not (pairs == values == count):
        return False
    span = None if pa.types.is_string(kind) else pc.max(column).as_py() - pc.min(column).as_py()
    return span is None or span < 2 * values


def _auc(column: pa.ChunkedArray, labels: NDArray[np.float64]) -> float:
    """Return how well one feature ranks the outcome, or splits it; missing is a value of its own.

    Text, and numbers in ranges (the outcome may follow a number down and up again), count by the mean outcome of other rows.
    """
    if pa.types.is_string(column.type):
        scores = _outcome_means(column.to_pylist(), labels)
    else:
        scores = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        usual = np.nan_to_num(scores, nan=-np.finfo(np.float64).max)
        missing = np.isnan(scores).astype(np.float64)
        ranges = np.searchsorted(np.unique(np.quantile(usual, np.linspace(0, 1, RANGES + 1), method="lower")), usual)
        ranged = statistics.auc(labels, _outcome_means(ranges.tolist(), labels))
        return max(_either_way(labels, usual), _either_way(labels, missing), ranged if ranged == ranged else 0.5)  # noqa: PLR0124
    return _either_way(labels, scores)


def _either_way(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    value = statistics.auc(labels, scores)
    return max(value, 1 - value) if value == value else 0.5  # noqa: PLR0124 - NaN


def _outcome_means(values: Sequence[object], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score each half of the rows by the smoothed mean outcome of their value in the other half: nothing is learnt by heart."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    encoded = np.array([codes[value] for value in values])
    half = np.arange(len(labels)) % 2 == 0
    base = float(labels.mean())
    scores = np.empty(len(labels))
    for mine, other in ((half, ~half), (~half, half)):
        sums = np.bincount(encoded[other], weights=labels[other], minlength=len(codes))
        counts = np.bincount(encoded[other], minlength=len(codes))
        scores[mine] = ((sums + base) / (counts + 1))[encoded[mine]]
    return scores
