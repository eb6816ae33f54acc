"""Draws by counter: the same whatever else is drawn, and of the stated distributions."""

from __future__ import annotations

import numpy as np
import pytest

from include.simulation.draws import keys, mix, normal, uniform

GOLDEN_KEYS = [11005108911746720799, 10451632439975130005, 4787059669805797872]
GOLDEN_UNIFORM = [0.7467878918301205, 0.8404726839740394, 0.9544876995839617]
GOLDEN_NORMAL = [-0.3715652817323432, 0.381238294970414, -0.5701792010878136]


def test_a_draw_depends_only_on_what_it_belongs_to() -> None:
    many = uniform(keys(7, 1, np.arange(1_000)), 3)
    alone = uniform(keys(7, 1, np.array([500])), 3)
    assert many[500] == alone[0]
    assert many.tolist() == uniform(keys(7, 1, np.arange(999, -1, -1)), 3)[::-1].tolist()


@pytest.mark.parametrize("other", [keys(8, 1, np.arange(50)), keys(7, 2, np.arange(50))])
def test_seed_and_salt_give_other_draws(other: np.ndarray) -> None:
    assert not np.isin(keys(7, 1, np.arange(50)), other).any()


def test_a_pair_is_no_pair_the_other_way_round() -> None:
    assert keys(7, 1, np.array([1]), np.array([2])) != keys(7, 1, np.array([2]), np.array([1]))


def test_values_are_those_of_every_machine() -> None:
    """Golden values: days that were made before must come out the same on any machine."""
    key = keys(7, 1, np.arange(3))
    assert key.tolist() == GOLDEN_KEYS
    assert uniform(key, 0).tolist() == GOLDEN_UNIFORM
    assert normal(key, 0).tolist() == GOLDEN_NORMAL
    assert mix(np.zeros(1, np.uint64)).tolist() == [0]


def test_distributions_are_the_stated_ones() -> None:
    key = keys(1, 1, np.arange(200_000))
    flat, bell = uniform(key, 0), normal(key, 1)
    assert 0 <= flat.min() < 1e-4
    assert 1 - 1e-4 < flat.max() < 1
    assert np.histogram(flat, bins=10, range=(0, 1))[0] / flat.size == pytest.approx(0.1, abs=0.005)
    assert bell.mean() == pytest.approx(0, abs=0.01)
    assert bell.var() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(flat, bell)[0, 1]) < 0.01
