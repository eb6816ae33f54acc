"""The rows of a view for a partition: what is known at `as_of`, in the declared types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError
from include.features.view_rows import ViewRows
from include.pipeline import ranges
from tests.builders.shop import DAY, HOUR, T0, US, YAML, Shop, arrive_week


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_snapshot_has_one_row_an_entity_stamped_as_of(shop: Shop) -> None:
    arrive_week(shop)
    shop.run(3)
    rows = {row["customer_id"]: row for row in shop.rows("spending", 3)}
    assert sorted(rows) == [0, 1, 2, 3, 4]
    assert rows[1]["event_timestamp"] == rows[1]["created_timestamp"] == T0 + 4 * DAY
    assert (rows[1]["orders_5d"], rows[1]["amount_5d"]) == (
        4,
        pytest.approx(10 + 999 + 10 + 2 / 3 + 11),
    )


def test_availability_is_added_to_the_created_time(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML.replace("availability: 0s", "availability: 2h"))
    arrive_week(shop, 1)
    shop.run(0)
    (row, *_) = shop.rows("spending", 0)
    assert (row["event_timestamp"], row["created_timestamp"]) == (T0 + DAY, T0 + DAY + 2 * HOUR)


def test_an_event_view_has_a_row_for_each_source_row_of_the_partition(shop: Shop) -> None:
    arrive_week(shop)
    shop.run(3)
    rows = shop.rows("visit", 3)
    assert [(row["customer_id"], row["pages"], row["device"]) for row in rows] == [
        (0, 3, None),
        (1, 4, "web"),
        (2, 5, "web"),
    ]
    assert {(row["event_timestamp"], row["created_timestamp"]) for row in rows} == {
        (T0 + 3 * DAY + HOUR, T0 + 3 * DAY + 2 * HOUR)
    }


@pytest.mark.parametrize(
    ("event", "created", "seen"), [(-US, -US, True), (0 * US, 0 * US, False), (-US, 0 * US, False)]
)
def test_both_times_are_cut_before_as_of(shop: Shop, event: Any, created: Any, seen: bool) -> None:
    end = shop.as_of(0)
    shop.arrive(0, [(1, 1, 1.0, T0, T0), (2, 2, 1.0, end + event, end + created)])
    shop.run(0)
    assert [row["customer_id"] for row in shop.rows("spending", 0)] == ([1, 2] if seen else [1])


SPENDING = YAML[YAML.index("    sql: >-") : YAML.index("    lookback: 5d")]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "SELECT customer_id, 1 AS orders_5d, 1.0 AS amount_5d, true AS today FROM orders",
            r"spending.*one row an entity, but 1 \(2 rows\)",
        ),
        (
            "SELECT customer_id, 1 AS orders_5d, 1.0 AS amount_5d FROM orders",
            r"spending: no column \['today'\]",
        ),
        (
            "SELECT 1 AS customer_id, 'x' AS orders_5d, 1.0 AS amount_5d, true AS today",
            r"orders_5d is VARCHAR, declared int64; cast it",
        ),
        (
            "SELECT NULL AS customer_id, 1 AS orders_5d, 1.0 AS amount_5d, true AS today",
            "1 rows have no customer_id",
        ),
        (
            "SELECT 1 AS customer_id, 2::HUGEINT**90 AS orders_5d, 1.0 AS amount_5d, true AS today",
            "DOUBLE, declared int64|does not fit",
        ),
        ("SELECT * FROM customers", r"reads \['customers'\]; sources are \['orders', 'visits'\]"),
        ("SELECT nonsense FROM orders", "nonsense"),
    ],
)
def test_a_view_that_does_not_hold_what_it_declares_is_refused_by_name(
    tmp_path: Path, sql: str, message: str
) -> None:
    shop = Shop(tmp_path, YAML.replace(SPENDING, f'    sql: "{sql}"\n'))
    shop.arrive(0, [(1, 1, 1.0, T0, T0), (2, 1, 1.0, T0, T0)])
    with pytest.raises(ConfigError, match=message):
        shop.run(0)


def test_an_event_view_by_sql_holds_what_arrived_in_the_partition(tmp_path: Path) -> None:
    sql = "SELECT customer_id, event_timestamp, created_timestamp, pages, device FROM visits"
    shop = Shop(tmp_path, YAML.replace("    source: visits\n", f"    sql: {sql}\n"))
    arrive_week(shop)
    for day in (2, 3):
        shop.run(day)
        assert {row["event_timestamp"] for row in shop.rows("visit", day)} == {
            T0 + day * DAY + HOUR
        }


@pytest.mark.parametrize("visible", ["with_request", "at_as_of"])
def test_partitions_of_few_rows_are_asked_for_together_and_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    """The moment that stands on two days is two rows, one a day; of one day's twins one stands."""
    shops = [
        Shop(tmp_path / name, YAML.replace("visible: with_request", f"visible: {visible}"))
        for name in ("one_by_one", "together")
    ]
    for shop in shops:
        for day in range(4):
            at, seen = T0 + day * DAY, T0 + HOUR
            visits = [(1, day, "web", seen, at + 2 * HOUR), (1, 9, "app", seen, at + 3 * HOUR)]
            shop.arrive(day, (), visits if day != 2 else ())
            shop.ask(day)
    asked: list[int] = []
    of_source = ViewRows._of_source

    def count(self: ViewRows, view: Any, name: str, contexts: Any) -> Any:
        asked.append(len(contexts))
        return of_source(self, view, name, contexts)

    monkeypatch.setattr(ViewRows, "_of_source", count)
    keys = [shops[0].key(day) for day in range(4)]
    settings = shops[1].settings
    done = list(ranges.run_range("materialize_features", "shop", keys, settings=settings))
    assert ([report.state for report in done], asked) == (["done"] * 4, [4])
    for day in range(4):
        shops[0].run(day)
        rows = shops[1].rows("visit", day)
        assert rows == shops[0].rows("visit", day)
        whole = {"with_request": [day, 9], "at_as_of": [9]}[visible]
        assert [row["pages"] for row in rows] == ([] if day == 2 else whole)
