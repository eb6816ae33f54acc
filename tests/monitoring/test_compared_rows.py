"""Which rows are compared: of whom a view is alive on each side, and new rows of event views."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from include.errors import ArtefactError
from include.features import population
from include.lake.sql import TIMESTAMP
from include.monitoring import psi
from include.monitoring.compared_rows import read_sides
from include.monitoring.references import Reference
from include.point_in_time import partitions
from tests.builders.monitoring import KEYS, House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    built = House(tmp_path)
    yield built
    built.records.close()


@pytest.mark.parametrize("churn", [0.0, 0.015, 0.05])
@pytest.mark.parametrize("sampled", ["with who is there", "as before"])
def test_customers_who_leave_are_no_drift_and_are_counted(
    house: House, churn: float, sampled: str
) -> None:
    """A hundred days of one distribution, a share of the customers replaced each day: no alarm,
    and a true shift is one.
    """
    rng, people, view = np.random.default_rng(4), 400, house.feature_set.views[0]
    there, newest, days = np.arange(people), people, []
    first = datetime(2026, 1, 1, tzinfo=UTC)
    for day in range(100):
        gone = rng.random(people) < churn
        there = np.where(gone, newest + np.cumsum(gone), there)
        newest += int(gone.sum())
        mean = 60.0 if day == 99 else 50.0
        times = pa.array([first + timedelta(days=day + 1)] * people, TIMESTAMP)
        columns = {"amount": rng.normal(mean, 10, people), "kind": rng.choice(["a", "b"], people)}
        rows = pa.table(
            {"customer_id": there, "event_timestamp": times, "created_timestamp": times, **columns}
        ).cast(view.schema)
        key = (first + timedelta(days=day)).date().isoformat()
        days.append(rows.append_column("partition", pa.array([key] * people)))
    table = f"{house.settings.lake_root}/{view.table('shop')}"
    write_deltalake(table, pa.concat_tables(days), partition_by=["partition"], mode="overwrite")
    house.model(1, "2026-01-21")
    model = house.records.models.get("shop", 1)
    assert model is not None
    as_of = partitions.period(house.use_case, "2026-01-21").as_of
    sample = population.population_at(house.lake, house.use_case, house.feature_set, as_of)
    if sampled == "as before":  # every entity ever seen, null where its view had expired
        sample = population.entity_frame_at(house.lake, house.use_case, house.feature_set, as_of)
    model.manifest["reference"] = {
        "path": str(house.settings.home / "sample.parquet"),
        "rows": len(sample),
    }
    pq.write_table(sample, house.settings.home / "sample.parquet")
    reference = Reference("2026-01-21", house.feature_set, model)
    found = {}
    for day in (21, 40, 70, 98, 99):
        key = (first + timedelta(days=day)).date().isoformat()
        context: Any = SimpleNamespace(use_case=house.use_case, lake=house.lake, key=key)
        sides = read_sides(context, reference)
        index = psi.stability(sides.reference["spend"], sides.current["spend"], view.columns)
        found[day] = max(one.psi or 0.0 for one in index.values())
        alive = sides.counted()["spend"]
        assert people <= alive.current <= people * (1 + 4 * churn), (
            "who left is there until the ttl ends, no longer"
        )
        stayed = (1 - churn) ** (day - 20)
        assert alive.lost == pytest.approx(1 - stayed, abs=0.1)
    assert max(found[day] for day in (21, 40, 70, 98)) < 0.2 < found[99], found


def context(house: House, key: str) -> Any:
    """What reading rows needs of a stage's context."""
    return SimpleNamespace(use_case=house.use_case, lake=house.lake, key=key)


def test_new_rows_of_an_event_view_are_the_same_sample_every_time(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1], channels="z")
    reference = Reference(KEYS[0], house.feature_set)
    few = house.use_case.monitoring.model_copy(update={"sample": 50})
    house.use_case = house.use_case.model_copy(update={"monitoring": few})
    first, again = (read_sides(context(house, KEYS[1]), reference) for _ in range(2))
    assert len(first.reference["visits"]) == len(first.current["visits"]) == 50
    assert first.current["visits"].equals(again.current["visits"])
    assert set(first.current["visits"]["channel"].to_pylist()) == {"z"}
    assert set(first.reference["visits"]["channel"].to_pylist()) == {"x", "y"}
    assert first.counted()["visits"].lost is None, "an event has nobody who could leave"


def test_a_sample_with_another_number_of_rows_is_damaged(house: House) -> None:
    house.day(KEYS[1])
    house.model(1, KEYS[0])
    model = house.records.models.get("shop", 1)
    assert model is not None
    model.manifest["reference"]["rows"] = 399
    with pytest.raises(ArtefactError, match="has 400 rows, not 399"):
        read_sides(context(house, KEYS[1]), Reference(KEYS[0], house.feature_set, model))


def test_a_model_without_a_sample_on_record_is_no_reference(house: House) -> None:
    house.day(KEYS[1])
    house.model(1, KEYS[0])
    model = house.records.models.get("shop", 1)
    assert model is not None
    model.manifest.clear()
    with pytest.raises(ArtefactError, match=r"the reference sample of version 1.* cannot be read"):
        read_sides(context(house, KEYS[1]), Reference(KEYS[0], house.feature_set, model))
