"""Platt's sigmoid: it finds the one that labels were drawn by, and never turns scores around."""

from __future__ import annotations

import numpy as np
import pytest

from include.models.platt import fit_platt


def test_the_sigmoid_of_the_labels_is_found_and_a_falling_one_refused() -> None:
    generator = np.random.default_rng(1)
    raw = generator.normal(size=5000)
    labels = (generator.random(5000) < 1 / (1 + np.exp(-(2.0 * raw - 0.5)))).astype(float)
    slope, offset = fit_platt(raw, labels)
    assert (slope, offset) == (pytest.approx(2.0, abs=0.15), pytest.approx(-0.5, abs=0.1))
    assert fit_platt(-raw, labels) == (1.0, 0.0)
    assert fit_platt(np.zeros(10), np.array([0.0, 1.0] * 5)) == (
        pytest.approx(1.0),
        pytest.approx(0.0),
    )


def test_sums_in_another_order_as_another_processor_takes_them_give_the_same_numbers() -> None:
    generator = np.random.default_rng(2)
    for rows in (50, 400, 3000, 20_000):
        raw = generator.normal(size=rows)
        labels = (generator.random(rows) < 1 / (1 + np.exp(-raw))).astype(float)
        fits = {fit_platt(raw, labels)}
        for _ in range(20):
            order = generator.permutation(rows)
            fits.add(fit_platt(raw[order], labels[order]))
        assert len(fits) == 1
