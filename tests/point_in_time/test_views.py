from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import ConfigError
from include.lake.sql import connect
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.point_in_time.curated import curated_schema
from include.point_in_time.views import AsOfViews

US, DAY = timedelta(microseconds=1), timedelta(days=1)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
YAML = """
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders:
    path: orders.csv
    event_time: ordered_at
    key: [customer_id, ordered_at]
    columns: {customer_id: {type: int64}, amount: {type: float64}}
  shops:
    kind: static
    path: shops.csv
    valid_from: 2026-01-01
    key: [shop_id]
    columns: {shop_id: {type: int64}, town: {type: string}}
label: {source: orders, column: amount, delay: 1d}
features:
  spending: {sql: SELECT 1, columns: {total: float64}}
"""


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return parse(YAML, folder=tmp_path)


def put(lake: Lake, use_case: UseCase, source: str, key: str, rows: list[tuple[Any, ...]]) -> None:
    schema = curated_schema(use_case.sources[source])
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    lake.replace(
        f"shop/curated/{source}",
        key,
        pa.table(dict(zip(schema.names, map(list, columns), strict=True)), schema=schema),
    )


def seen(
    views: AsOfViews, use_case: UseCase, day: str, lookback: timedelta = 30 * DAY
) -> list[float]:
    views.at(partitions.period(use_case, day), lookback)
    return sorted(views.query("SELECT amount FROM orders").column("amount").to_pylist())


def test_a_correction_is_seen_from_its_creation_on_and_not_before(
    tmp_path: Path, use_case: UseCase
) -> None:
    """Fault 42: 10 becomes 999 on the second day; the first day says 10 for ever."""
    lake = Lake(str(tmp_path / "lake"))
    put(lake, use_case, "orders", "2026-01-01", [(1, 10.0, T0, T0)])
    put(lake, use_case, "orders", "2026-01-02", [(1, 999.0, T0, T0 + DAY + US)])
    with AsOfViews(
        connect(alone=True), lake, use_case, keys=["2026-01-01", "2026-01-02"], sources=["orders"]
    ) as views:
        assert seen(views, use_case, "2026-01-01") == [10.0]
        assert seen(views, use_case, "2026-01-02") == [999.0]
        assert seen(views, use_case, "2026-01-01") == [10.0]


@pytest.mark.parametrize(
    ("event", "created", "visible"),
    [
        (T0 + DAY - US, T0 + DAY - US, True),
        (T0 + DAY, T0 + DAY - US, False),
        (T0 + DAY - US, T0 + DAY, False),
        (T0 - DAY, T0 + DAY - US, True),
        (T0 - DAY - US, T0 + DAY - US, False),
    ],
)
def test_both_times_are_cut_at_as_of_and_the_lookback_at_its_first_microsecond(
    tmp_path: Path, use_case: UseCase, event: datetime, created: datetime, visible: bool
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    put(lake, use_case, "orders", "2026-01-01", [(1, 1.0, event, created)])
    with AsOfViews(
        connect(alone=True), lake, use_case, keys=["2026-01-01"], sources=["orders"]
    ) as views:
        assert bool(seen(views, use_case, "2026-01-01", 2 * DAY)) is visible


def test_a_correction_at_as_of_does_not_hide_what_was_known_before(
    tmp_path: Path, use_case: UseCase
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    rows = [(1, 10.0, T0, T0), (1, 20.0, T0, T0 + DAY), (1, 30.0, T0, T0 + DAY + US)]
    put(lake, use_case, "orders", "2026-01-01", rows)
    with AsOfViews(
        connect(alone=True), lake, use_case, keys=["2026-01-01"], sources=["orders"]
    ) as views:
        assert seen(views, use_case, "2026-01-01") == [10.0]
        assert seen(views, use_case, "2026-01-02") == [30.0]


def test_a_static_source_shows_its_newest_known_version_whole(
    tmp_path: Path, use_case: UseCase
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    put(lake, use_case, "shops", "2026-01-01", [(1, "Rome", T0, T0), (2, "Oslo", T0, T0)])
    put(lake, use_case, "shops", "2026-01-03", [(1, "Paris", T0, T0 + 2 * DAY)])
    with AsOfViews(connect(alone=True), lake, use_case, keys=[], sources=["shops"]) as views:
        for day, towns in (("2026-01-02", ["Oslo", "Rome"]), ("2026-01-03", ["Paris"])):
            views.at(partitions.period(use_case, day), DAY)
            assert (
                views.query("SELECT town FROM shops ORDER BY town").column(0).to_pylist() == towns
            )


def test_rows_beside_the_lake_count_and_missing_tables_are_empty(
    tmp_path: Path, use_case: UseCase
) -> None:
    schema = curated_schema(use_case.sources["orders"])
    rows = pa.table([[7], [70.0], [T0], [T0]], schema=schema)
    with AsOfViews(
        connect(alone=True), Lake(str(tmp_path / "lake")), use_case, keys=[], more={"orders": rows}
    ) as views:
        assert seen(views, use_case, "2026-01-01") == [70.0]
        assert len(views.query("SELECT * FROM shops")) == 0
        assert list(views.types("SELECT * FROM orders")) == [
            "customer_id",
            "amount",
            "event_timestamp",
            "created_timestamp",
        ]
        variables = views.query(
            "SELECT getvariable('as_of') AS a, getvariable('interval_start') AS b"
        ).to_pylist()[0]
        assert variables == {"a": T0 + DAY, "b": T0}


def test_only_the_columns_that_are_asked_for_are_loaded(tmp_path: Path, use_case: UseCase) -> None:
    lake = Lake(str(tmp_path / "lake"))
    put(lake, use_case, "orders", "2026-01-01", [(1, 10.0, T0, T0)])
    with AsOfViews(
        connect(alone=True),
        lake,
        use_case,
        keys=["2026-01-01"],
        sources=["orders"],
        columns={"orders": ["amount"]},
    ) as views:
        views.at(partitions.period(use_case, "2026-01-01"), DAY)
        assert list(views.types("SELECT * FROM orders")) == [
            "amount",
            "event_timestamp",
            "created_timestamp",
        ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM nowhere",
        "SET threads = 4",
    ],
)
def test_a_query_reaches_nothing_outside(tmp_path: Path, use_case: UseCase, sql: str) -> None:
    with (
        AsOfViews(connect(alone=True), Lake(str(tmp_path / "lake")), use_case, keys=[]) as views,
        pytest.raises(ConfigError, match="the query fails"),
    ):
        views.query(sql)


def test_floating_sums_do_not_depend_on_what_else_was_loaded(
    tmp_path: Path, use_case: UseCase
) -> None:
    """One day alone and the same day within a range give the same bits."""
    lake = Lake(str(tmp_path / "lake"))
    count = 60_000
    for number, key in enumerate(("2026-01-01", "2026-01-02", "2026-01-03")):
        start = T0 + number * DAY
        times = [start + timedelta(seconds=index) for index in range(count)]
        columns = [
            [index % 7 for index in range(count)],
            [0.1 * (index % 1013) for index in range(count)],
            times,
            times,
        ]
        lake.replace(
            "shop/curated/orders",
            key,
            pa.table(columns, schema=curated_schema(use_case.sources["orders"])),
        )
    sums = []
    for keys in (["2026-01-02"], ["2026-01-01", "2026-01-02", "2026-01-03"]):
        with AsOfViews(connect(alone=True), lake, use_case, keys=keys, sources=["orders"]) as views:
            views.at(partitions.period(use_case, "2026-01-02"), DAY)
            sums.append(
                views.query(
                    "SELECT customer_id, sum(amount), avg(amount) FROM orders GROUP BY 1 ORDER BY 1"
                ).to_pylist()
            )
    assert sums[0] == sums[1]
