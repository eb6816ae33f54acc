"""Numbers that judge scores: AUC with its paired interval, calibration, ROC.

Not computable is NaN, never an exception.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Entities: TypeAlias = "pa.ChunkedArray | pa.Array | NDArray[np.generic]"
MIN_ENTITIES = 20  # of fewer the interval's normal form says too little
# Of few rows ten bins hold more chance than error: a model whose true error is the limit + .05
# would pass every ninth time at 500 rows of each class (tests/models/test_metrics.py).
ROWS_PER_BIN, FEWEST_BINS, MOST_BINS = 200, 5, 10
DRAWS = 1000
BLOCK = 4_000_000  # random numbers that are drawn at once: 16 MB
Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
NAN = float("nan")
EMPTY: Numbers = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with its 95 % interval.

    Where there is no interval its ends are NaN and `reason` says why.
    """

    value: float
    low: float
    high: float
    reason: str = ""


def computable(labels: Numbers, *scores: Numbers) -> bool:
    """Tell whether there are both classes, finite numbers only, and as many scores as labels."""
    finite = all(
        bool(np.isfinite(numbers).all()) and numbers.shape == labels.shape
        for numbers in (labels, *scores)
    )
    return (
        finite
        and len(labels) > 0
        and bool(np.isin(labels, (0.0, 1.0)).all())
        and bool(labels.min() != labels.max())
    )


def auc(labels: Numbers, scores: Numbers) -> float:
    """Return the area under the ROC curve, ties counted half (Mann-Whitney)."""
    if not computable(labels, scores):
        return NAN
    positive = labels == 1.0
    m, n = int(positive.sum()), int((~positive).sum())
    return float((midranks(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))


def auc_difference(
    labels: Numbers, first: Numbers, second: Numbers, entities: Entities | None = None
) -> Interval:
    """Return AUC(first) - AUC(second) on the same rows with its paired 95 % interval by entity.

    Rows of one entity are alike and tell less than as many rows of different ones, so what
    varies is each entity's sum: Obuchowski (1997), Biometrics 53:567-578, over the placements of
    DeLong, DeLong, Clarke-Pearson (1988), Biometrics 44:837-845, in the fast form of Sun and Xu
    (2014), IEEE Signal Processing Letters 21:1389-1393. Where each entity has one row (None:
    each row is an entity of its own) it is DeLong's interval.
    """
    if not computable(labels, first, second):
        return Interval(
            NAN, NAN, NAN, "there are not both outcomes, or a score is no finite number"
        )
    positive = labels == 1.0
    m, n = int(positive.sum()), int((~positive).sum())
    over_negatives, over_positives = np.zeros(m), np.zeros(n)
    for sign, scores in ((1.0, first), (-1.0, second)):
        ranks = midranks(scores)
        # Sun and Xu's form: the rank among all, less that among one's own outcome, counts the rows
        # of the other outcome that are beaten.
        over_negatives += sign * (ranks[positive] - midranks(scores[positive])) / n
        over_positives += sign * (1.0 - (ranks[~positive] - midranks(scores[~positive])) / m)
    difference = auc(labels, first) - auc(labels, second)
    group = np.arange(len(labels)) if entities is None else codes_of(entities)
    count = int(group.max()) + 1
    if count < MIN_ENTITIES:
        reason = f"the rows are of {count} entities, an interval needs {MIN_ENTITIES}"
        return Interval(difference, NAN, NAN, reason)
    # Both sums of an entity, of its positives and of its negatives, move together: hence the
    # third term. Its entities are all, also those that have one outcome only (their product is 0).
    ones, zeros = (np.bincount(group[chosen], minlength=count) for chosen in (positive, ~positive))
    with_ones, with_zeros = int((ones > 0).sum()), int((zeros > 0).sum())
    if min(with_ones, with_zeros) < 2:
        lone = 1 if with_ones < 2 else 0
        reason = f"outcome {lone} is of one entity alone, an interval needs two"
        return Interval(difference, NAN, NAN, reason)
    of_ones = np.bincount(group[positive], weights=over_negatives - difference, minlength=count)
    of_zeros = np.bincount(group[~positive], weights=over_positives - difference, minlength=count)
    variance = (
        with_ones / (with_ones - 1) * float(of_ones @ of_ones) / m**2
        + with_zeros / (with_zeros - 1) * float(of_zeros @ of_zeros) / n**2
        + 2 * count / (count - 1) * float(of_ones @ of_zeros) / (m * n)
    )
    # The third term may take it a rounding error below 0, where two models rank alike.
    half = Z95 * math.sqrt(max(variance, 0.0))
    return Interval(difference, difference - half, difference + half)


def auc_interval(labels: Numbers, scores: Numbers, entities: Entities | None = None) -> Interval:
    """Return the AUC with its 95 % interval by entity.

    It is the difference to scores that are all equal: their AUC is one half, and varies with
    nothing.
    """
    over_chance = auc_difference(labels, scores, np.zeros_like(scores), entities)
    low, high = (
        min(max(0.5 + end, 0.0), 1.0) if math.isfinite(end) else NAN
        for end in (over_chance.low, over_chance.high)
    )
    return Interval(auc(labels, scores), low, high, over_chance.reason)


def codes_of(entities: Entities) -> NDArray[np.int64]:
    """Return a number from 0 for each row, the same for rows of one entity."""
    if isinstance(entities, np.ndarray):
        return np.unique(entities, return_inverse=True)[1].astype(np.int64)
    encoded = encoded_text(entities)
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int64)


def encoded_text(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """Return a column as codes over its distinct values, of which null is one."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):  # text of more than 2 GB stays in chunks
        whole = whole.cast(pa.large_string()).combine_chunks()
    return whole.dictionary_encode(null_encoding="encode")


def midranks(values: Numbers) -> Numbers:
    """Return the ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result: Numbers = ((2 * ends - counts + 1) / 2.0)[inverse]
    return result


def calibration_curve(labels: Numbers, scores: Numbers) -> list[tuple[float, float, int]]:
    """Return (mean score, share of positives, rows) of each bin, by ascending score.

    Bins are of about equal size. Rows of one score are never divided, so the order in which they
    come changes nothing.
    """
    if not computable(labels, scores):
        return []
    order = np.argsort(scores, kind="stable")
    ranked, hits = scores[order], labels[order]
    starts = _starts(ranked)
    sizes = np.diff(np.append(starts, len(ranked)))
    means, shares = (np.add.reduceat(one, starts) / sizes for one in (ranked, hits))
    return list(zip(means.tolist(), shares.tolist(), sizes.tolist(), strict=True))


def calibration_error(labels: Numbers, scores: Numbers) -> float:
    """Return the expected calibration error: the mean gap of score and outcome over the bins."""
    curve = calibration_curve(labels, scores)
    if not curve:
        return NAN
    return sum(abs(score - share) * rows for score, share, rows in curve) / len(labels)


def calibration_errors_by_chance(scores: Numbers, seed: int, draws: int = DRAWS) -> Numbers:
    """Return the calibration errors of so many draws of outcomes from the scores themselves.

    That is what chance alone gives a model whose scores are right, on as many rows.
    """
    generator = np.random.default_rng(seed % 2**64)  # it takes no negative seed
    ranked = np.clip(np.sort(scores), 0.0, 1.0)
    starts = _starts(ranked)
    expected = np.add.reduceat(ranked, starts)
    errors = []
    # a block of draws at a time: as many rows as there may be need no more memory
    for first in range(0, draws, block := max(1, BLOCK // len(ranked))):
        size = (min(block, draws - first), len(ranked))
        outcomes = generator.random(size, dtype=np.float32) < ranked
        counts = np.add.reduceat(outcomes, starts, axis=1, dtype=np.int64)
        errors.append(np.abs(counts - expected).sum(axis=1) / len(ranked))
    return np.concatenate(errors)


def _starts(ranked: Numbers) -> NDArray[np.int64]:
    """Return where the bins of ascending scores begin; a bin takes all rows of its last score."""
    rows = len(ranked)
    bins = min(max(rows // ROWS_PER_BIN, FEWEST_BINS), MOST_BINS, rows)
    sizes = np.full(bins, rows // bins)
    sizes[: rows % bins] += 1
    ends = np.append(np.flatnonzero(np.diff(ranked)) + 1, rows)
    last = np.unique(ends[np.searchsorted(ends, np.cumsum(sizes))])
    return np.append(0, last[:-1])


def brier(labels: Numbers, scores: Numbers) -> float:
    """Return the mean squared distance of score and outcome."""
    return float(np.mean((scores - labels) ** 2)) if computable(labels, scores) else NAN


def log_loss(labels: Numbers, scores: Numbers) -> float:
    """Return the mean negative log likelihood, scores clipped to [1e-15, 1 - 1e-15]."""
    if not computable(labels, scores):
        return NAN
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    return float(-np.mean(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped)))


def roc(labels: Numbers, scores: Numbers, points: int = 200) -> list[tuple[float, float]]:
    """Return pairs (false positive rate, true positive rate) from (0, 0) to (1, 1).

    There are at most about `points` of them.
    """
    if not computable(labels, scores):
        return []
    order = np.argsort(-scores, kind="stable")
    hits, ranked = labels[order], scores[order]
    # The last row of each score: rows of one score pass the threshold together.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true = np.cumsum(hits)[last] / hits.sum()
    false = np.cumsum(1 - hits)[last] / (1 - hits).sum()
    if len(last) > points:
        keep = np.unique(np.linspace(0, len(last) - 1, points).astype(int))
        true, false = true[keep], false[keep]
    return [(0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True)]
