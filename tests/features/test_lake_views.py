"""What had arrived: the partitions of a table whose `as_of` had passed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from include.features.lake_views import scan_arrived
from include.lake.sql import connect
from tests.builders.shop import T0, US, Shop

SCHEMA = pa.schema([("day", pa.int64())])


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    for day in range(4):
        made.lake.replace("shop/days", made.key(day), pa.table({"day": [day]}, schema=SCHEMA))
    return made


def days(shop: Shop, as_of: datetime, table: str = "shop/days", **more: object) -> list[int]:
    """Return which days a scan shows."""
    with connect() as con:
        scan_arrived(
            con,
            shop.lake,
            "seen",
            table,
            shop.use_case,
            as_of,
            **({"version": None, "schema": SCHEMA} | more),  # type: ignore[arg-type]
        )
        return [day for (day,) in con.execute("SELECT day FROM seen ORDER BY day").fetchall()]


def test_a_partition_is_seen_from_its_own_as_of_on(shop: Shop) -> None:
    assert days(shop, shop.as_of(1)) == [0, 1]
    assert days(shop, shop.as_of(1) + US) == [0, 1, 2], "its rows are cut by time, not here"
    assert days(shop, T0) == []


def test_only_the_keys_that_are_asked_for_are_seen(shop: Shop) -> None:
    assert days(shop, shop.as_of(2), keys=[shop.key(0), shop.key(2), shop.key(3)]) == [0, 2]


def test_a_pinned_version_is_seen_as_it_was(shop: Shop) -> None:
    version = shop.lake.version("shop/days")
    shop.lake.replace("shop/days", shop.key(0), pa.table({"day": [77]}, schema=SCHEMA))
    assert days(shop, shop.as_of(0), version=version) == [0]
    assert days(shop, shop.as_of(0)) == [77]


def test_a_table_that_is_not_there_has_no_rows(shop: Shop) -> None:
    assert days(shop, shop.as_of(3), "shop/nothing") == []
