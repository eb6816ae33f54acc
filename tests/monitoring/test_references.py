"""Which partitions are compared: the opponent's training window, or the partition before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.monitoring import references
from include.monitoring.references import Reference
from tests.builders.monitoring import KEYS, House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    return House(tmp_path)


def test_without_an_opponent_the_window_is_the_partition_before(house: House) -> None:
    context: Any = SimpleNamespace(use_case=house.use_case, key=KEYS[4])
    reference = Reference(KEYS[3], house.feature_set)
    assert reference.kind == "before"
    assert reference.recorded().version is None
    assert references.training_window(context, reference) == [KEYS[3]]
    # Two days of ttl before each side, and the partition itself.
    assert set(references.feature_keys(context, reference)) >= {KEYS[2], KEYS[3], KEYS[4]}


def test_an_opponents_window_is_what_it_was_trained_on(house: House) -> None:
    house.model(1, KEYS[4])
    model = house.records.models.get("shop", 1)
    context: Any = SimpleNamespace(use_case=house.use_case, key=KEYS[6])
    reference = Reference(KEYS[4], house.feature_set, model)
    assert reference.recorded().kind == "opponent"
    assert references.training_window(context, reference) == KEYS[:5], "all history"
    training = house.use_case.training.model_validate({"window": "2d"})
    context.use_case = house.use_case.model_copy(update={"training": training})
    assert references.training_window(context, reference) == KEYS[3:5]
