"""The sigmoid from raw scores to probabilities, fitted on rows that no model was fitted on."""

from __future__ import annotations

import numpy as np

from include.models.calibration import calibrated
from include.models.matrix import Numbers

DECIMALS = 10  # that are kept: sums of a million rows agree to about 13


def fit_platt(raw: Numbers, labels: Numbers) -> tuple[float, float]:
    """Return slope and offset of the sigmoid over raw scores; (1, 0) where the fit would not rise.

    Platt (1999), "Probabilistic outputs for support vector machines", with his smoothed targets, by
    Newton steps. Both are rounded to `DECIMALS`.
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    targets = np.where(labels == 1.0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([raw, np.ones_like(raw)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        scores = calibrated(raw, float(weights[0]), float(weights[1]))
        gradient = design.T @ (scores - targets)
        curvature = design.T @ (design * (scores * (1 - scores))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    good = bool(np.isfinite(weights).all()) and weights[0] > 0
    return (_rounded(weights[0]), _rounded(weights[1])) if good else (1.0, 0.0)


def _rounded(weight: float) -> float:
    """Return a weight without the digits in which two processors' linear algebra may differ.

    A model's digest is over these numbers, and a past day must give it on any machine.
    """
    return round(float(weight), DECIMALS)
