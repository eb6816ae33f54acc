"""Calibration: one number and many alike, at any size of a raw score."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from include.models.calibration import calibrated, sigmoid


@pytest.mark.parametrize("raw", [-1e308, -800.0, -20.0, -1e-300, 0.0, 1.5, 40.0, 800.0, 1e308])
def test_one_number_and_many_agree_and_nothing_overflows(raw: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = calibrated(np.array([raw, raw]), 1.0, 0.0)
    assert many == pytest.approx([sigmoid(raw)] * 2, abs=1e-12)
    assert 0.0 <= sigmoid(raw) <= 1.0


def test_slope_and_offset_move_the_score() -> None:
    assert calibrated(np.array([0.5]), 2.0, -1.0)[0] == 0.5
    assert sigmoid(math.log(3)) == pytest.approx(0.75)
