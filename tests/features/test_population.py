"""All entities at a moment: nothing from later, stale ones kept, nobody remembered for ever."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.features import population
from include.features.feature_sets import FeatureSet
from include.lake.sql import TIMESTAMP
from tests.builders.shop import DAY, HOUR, T0, YAML, Shop, run_days


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_an_entity_frame_sees_no_later_partition_and_keeps_who_is_stale(shop: Shop) -> None:
    run_days(shop, 2)
    gone = T0 + DAY + HOUR  # customer 2 visited on day 1 only
    for day in range(2, 8):
        shop.arrive(day, [(day, 1, 1.0, T0 + day * DAY, T0 + day * DAY)])
        shop.run(day)
    first = population.entity_frame_at(shop.lake, shop.use_case, shop.feature_set, shop.as_of(1))
    assert first.column_names == [
        "customer_id",
        "event_timestamp",
        "orders_5d",
        "amount_5d",
        "today",
        "pages",
        "device",
    ]
    assert [(row["customer_id"], row["orders_5d"], row["pages"]) for row in first.to_pylist()] == [
        (1, 2, 0),
        (2, None, 1),
    ]
    last = population.entity_frame_at(
        shop.lake, shop.use_case, shop.feature_set, shop.as_of(7)
    ).to_pylist()
    assert [(row["customer_id"], row["orders_5d"], row["pages"]) for row in last] == [
        (1, 5, None),
        (2, None, None),
    ]
    ttl = shop.feature_set.ttl
    assert last[1]["event_timestamp"] + ttl == gone + 4 * DAY  # the visit view's own ttl
    assert last[1]["event_timestamp"] + ttl < shop.as_of(7)
    for day, whole in ((1, first.to_pylist()), (7, last[:1])):  # nothing of customer 2 is alive
        living = population.living_frame_at(
            shop.lake, shop.use_case, shop.feature_set, shop.as_of(day)
        )
        assert living.to_pylist() == whole


def test_availability_moves_the_moment_of_an_entity_frame(tmp_path: Path) -> None:
    """The day's own snapshot is seen although it is available later.

    What arrives meanwhile belongs to the next day.
    """
    shop = Shop(tmp_path, YAML.replace("availability: 0s", "availability: 2h"))
    run_days(shop, 1)
    meanwhile = shop.as_of(0) + HOUR
    shop.arrive(1, [], [(1, 77, "web", meanwhile, meanwhile)])
    shop.run(1)
    (row,) = population.entity_frame_at(
        shop.lake, shop.use_case, shop.feature_set, shop.as_of(0)
    ).to_pylist()
    assert (row["orders_5d"], row["pages"]) == (1, 0)


def test_nobody_is_online_longer_than_four_ttls(tmp_path: Path) -> None:
    """An entity is there while one of its views is; then it is unknown, also to a fallback."""
    shop = Shop(tmp_path)
    spending, visit = shop.feature_set.views
    for view, values in (
        (spending, {"orders_5d": [1], "amount_5d": [1.0], "today": [True]}),
        (visit, {"pages": [3], "device": ["a"]}),
    ):
        times = pa.array([T0 + DAY], TIMESTAMP)
        rows = pa.table(
            {"customer_id": [1], "event_timestamp": times, "created_timestamp": times, **values}
        ).cast(view.schema)
        shop.lake.replace(view.table("shop"), shop.key(0), rows)

    def there(as_of: datetime, *views: Any) -> int:
        return len(population.answers_at(shop.lake, shop.use_case, FeatureSet(views), as_of))

    assert [there(T0 + (1 + days) * DAY, spending) for days in (0, 3, 12, 13)] == [1, 1, 1, 0]
    assert [there(T0 + (1 + days) * DAY, spending, visit) for days in (13, 16, 17)] == [1, 1, 0]
    alive = population.population_at(
        shop.lake, shop.use_case, shop.feature_set, T0 + 5 * DAY
    ).to_pylist()
    assert [(row["__alive_spending"], row["__alive_visit"]) for row in alive] == [(False, True)]
    nobody = population.population_at(shop.lake, shop.use_case, shop.feature_set, T0 + 30 * DAY)
    assert (len(nobody), nobody.schema) == (
        0,
        population.population_at(shop.lake, shop.use_case, shop.feature_set, T0).schema,
    )


def test_no_partition_is_read_whose_rows_nobody_remembers(shop: Shop) -> None:
    """So a night costs the same over any history: the files of old partitions may be gone."""
    run_days(shop, 30)

    def answers() -> list[dict[str, Any]]:
        return population.answers_at(
            shop.lake, shop.use_case, shop.feature_set, shop.as_of(29)
        ).to_pylist()

    whole = answers()
    for view in shop.feature_set.views:
        for path in shop.lake.files(view.table("shop"), keys=[shop.key(day) for day in range(10)]):
            Path(path).unlink()
    assert answers() == whole
    # What is remembered longest is read to its last moment: four ttls of the visits.
    longest = max(view.ttl for view in shop.feature_set.views)
    oldest = population._first_partition(shop.use_case, shop.feature_set, shop.as_of(29))
    assert oldest == shop.key(29 - 4 * longest // DAY)
