"""Probabilities of raw scores: `1 / (1 + exp(-(slope * raw + offset)))`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def calibrated(raw: NDArray[np.float64], slope: float, offset: float) -> NDArray[np.float64]:
    """Return the probabilities of raw scores."""
    with np.errstate(over="ignore"):  # exp(710) is infinity, and 1 / infinity the right answer
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(slope * raw + offset)))
    return result


def sigmoid(value: float) -> float:
    """Return the same of one number; the sign decides which form cannot overflow."""
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    tail = math.exp(value)
    return tail / (1.0 + tail)
