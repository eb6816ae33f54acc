"""Numbers that judge scores: AUC with its paired interval, calibration, ROC. Not computable is NaN, never an exception."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Z95 = 1.959963984540054
NAN = float("nan")
EMPTY: Numbers = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with its 95 % interval."""

    value: float
    low: float
    high: float


def computable(labels: Numbers, *scores: Numbers) -> bool:
    """Tell whether there are both classes and nothing but finite numbers."""
    finite = all(bool(np.isfinite(numbers).all()) and numbers.shape == labels.shape for numbers in (labels, *scores))
    return finite and len(labels) > 0 and bool(np.isin(labels, (0.0, 1.0)).all()) and bool(labels.min() != labels.max())


def auc(labels: Numbers, scores: Numbers) -> float:
    """Return the area under the ROC curve, ties counted half (Mann-Whitney)."""
    if not computable(labels, scores):
        return NAN
    positive = labels == 1.0
    m, n = int(positive.sum()), int((~positive).sum())
    return float((midranks(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))


def auc_difference(labels: Numbers, first: Numbers, second: Numbers) -> Interval:
    """Return AUC(first) - AUC(second) on the same rows with its paired 95 % interval.

    DeLong, DeLong, Clarke-Pearson (1988), Biometrics 44:837-845, in the fast form of Sun and Xu (2014),
    IEEE Signal Processing Letters 21:1389-1393.
    """
    if not computable(labels, first, second):
        return Interval(NAN, NAN, NAN)
    positive = labels == 1.0
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return Interval(NAN, NAN, NAN)
    areas, of_positives, of_negatives = [], [], []
    for scores in (first, second):
        everyone = midranks(scores)
        over_negatives = (everyone[positive] - midranks(scores[positive])) / n
        over_positives = 1.0 - (everyone[~positive] - midranks(scores[~positive])) / m
        areas.append(float(over_negatives.mean()))
        of_positives.append(over_negatives)
        of_negatives.append(over_positives)
    covariance = np.cov(np.stack(of_positives)) / m + np.cov(np.stack(of_negatives)) / n
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    half = Z95 * math.sqrt(max(variance, 0.0))
    difference = areas[0] - areas[1]
    return Interval(difference, difference - half, difference + half)


def midranks(values: Numbers) -> Numbers:
    """Return the ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result: Numbers = ((2 * ends - counts + 1) / 2.0)[inverse]
    return result


def calibration_curve(labels: Numbers, scores: Numbers, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return (mean score, share of positives, rows) of bins of equal size, by ascending score."""
    if not computable(labels, scores):
        return []
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [(float(scores[part].mean()), float(labels[part].mean()), len(part)) for part in parts]


def calibration_error(labels: Numbers, scores: Numbers, bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap of score and outcome over bins of equal size."""
    curve = calibration_curve(labels, scores, bins)
    if not curve:
        return NAN
    return sum(abs(score - share) * rows for score, share, rows in curve) / len(labels)


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
    """Return (false positive rate, true positive rate) pairs from (0, 0) to (1, 1), at most about `points`."""
    if not computable(labels, scores):
        return []
    order = np.argsort(-scores, kind="stable")
    hits, ranked = labels[order], scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true = np.cumsum(hits)[last] / hits.sum()
    false = np.cumsum(1 - hits)[last] / (1 - hits).sum()
    if len(last) > points:
        keep = np.unique(np.linspace(0, len(last) - 1, points).astype(int))
        true, false = true[keep], false[keep]
    return [(0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True)]
