"""Labels by SQL are asked of the groups of rows alone that may answer otherwise than before, and
are those that the whole query gives.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.lake.sql import connect
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.point_in_time.curated import curated_schema
from include.point_in_time.sql_groups import Groups
from include.point_in_time.views import AsOfViews
from include.validation import labels

FIRST, DAYS, HOUR = datetime(2026, 1, 1, tzinfo=UTC), 7, timedelta(hours=1)
YAML = """
name: shop
history: {{first: 2026-01-01}}
entity: {{name: customer, key: customer_id}}
sources:
  orders:
    path: orders.csv
    event_time: ordered_at
    key: [order_id]
    columns:
      order_id: {{type: int64}}
      customer_id: {{type: int64}}
      due_at: {{type: timestamp}}
      amount: {{type: float64}}
label:
  delay: 1d
  lookback: 5d
  sql: |
    {sql}
features: {{facts: {{grain: event, source: orders, columns: {{order_id: int64}}}}}}
"""
AS_OF = "getvariable('as_of')"
QUERIES = {
    "of a customer and a moment": (
        "WITH o AS (SELECT customer_id, due_at, max(created_timestamp) FILTER (WHERE amount > 30) "
        "AS paid, sum(amount) AS s FROM orders GROUP BY customer_id, due_at) SELECT customer_id, "
        "due_at AS event_timestamp, coalesce(paid, due_at + INTERVAL 2 DAY) AS label_timestamp, "
        f"CASE WHEN paid IS NULL THEN 0 ELSE 1 END AS label FROM o WHERE paid IS NOT NULL OR due_at"
        f" < {AS_OF} - INTERVAL 2 DAY"
    ),
    "of a customer": (
        "SELECT customer_id, min(event_timestamp) AS event_timestamp, max(created_timestamp) AS "
        "label_timestamp, CASE WHEN sum(amount) > 120.1 THEN 1 ELSE 0 END AS label FROM orders "
        f"WHERE due_at BETWEEN {AS_OF} - INTERVAL 4 DAY AND {AS_OF} + INTERVAL 1 DAY GROUP BY 1"
    ),
    "of the last row of a customer": (
        "SELECT customer_id, event_timestamp, created_timestamp AS label_timestamp, amount > 50 AS "
        "label FROM orders QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY "
        "event_timestamp DESC, order_id) = 1"
    ),
    "of rows that a condition guards": (
        "SELECT customer_id, event_timestamp, min(created_timestamp) AS label_timestamp, 1 AS label"
        " FROM orders WHERE CASE WHEN amount < 0 THEN CAST(CAST(amount AS VARCHAR) AS TIMESTAMPTZ) "
        f"< {AS_OF} ELSE due_at < {AS_OF} END GROUP BY customer_id, event_timestamp"
    ),
    "of a row": (
        "SELECT customer_id, event_timestamp, min(created_timestamp) AS label_timestamp, "
        "bool_or(amount > 50) AS label FROM orders "
        f"WHERE due_at < {AS_OF} GROUP BY customer_id, event_timestamp"
    ),
}


def case(sql: str) -> UseCase:
    return parse(YAML.format(sql=sql))


def put_rows(lake: Lake, use_case: UseCase) -> list[str]:
    """Write days of orders: some late, some corrected by a further row of the same key."""
    chance = random.Random(7)
    schema = curated_schema(use_case.sources["orders"])
    rows: dict[str, list[dict[str, Any]]] = {}
    for order in range(160):
        happened = FIRST + chance.randrange(DAYS * 24) * HOUR
        row = {
            "order_id": order,
            "customer_id": chance.randrange(25),
            "due_at": happened + chance.choice([-60, -48, -10, 0, 12, 36]) * HOUR,
            "amount": chance.uniform(1, 90),
            "event_timestamp": happened,
        }
        created = happened + chance.choice([0, 1, 30]) * HOUR
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            key = partitions.key_of(use_case, created)
            rows.setdefault(key, []).append(row | {"created_timestamp": created})
            created += chance.choice([1, 20, 50]) * HOUR
            row = row | {"amount": chance.uniform(1, 90)}
            if chance.random() < 0.3:  # it was another customer's: both groups change
                row = row | {"customer_id": chance.randrange(25)}
    for key, of_day in rows.items():
        lake.replace("shop/curated/orders", key, pa.Table.from_pylist(of_day, schema=schema))
    return partitions.between(use_case, "2026-01-01", "2026-01-09")


# HAVING means the value of the SELECT by a name that a column has, too.
RENAMED = (
    "SELECT customer_id, min(event_timestamp) AS event_timestamp, max(due_at) AS label_timestamp, "
    "max(due_at) + INTERVAL 2 DAY AS due_at, 1 AS label FROM orders GROUP BY customer_id HAVING "
    f"due_at < {AS_OF}"
)


@pytest.mark.parametrize("sql", [*QUERIES.values(), RENAMED], ids=[*QUERIES, "of another name"])
def test_the_labels_are_those_of_the_whole_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    use_case, lake = case(sql), Lake(str(tmp_path / "lake"))
    keys = put_rows(lake, use_case)
    periods = [partitions.period(use_case, key) for key in keys]
    kept: list[str] = []
    keep_changed = AsOfViews.keep_changed

    def counted(self: AsOfViews, name: str, groups: Groups) -> str:
        kept.append(name)
        return keep_changed(self, name, groups)

    monkeypatch.setattr(AsOfViews, "keep_changed", counted)
    with (
        AsOfViews(connect(alone=True), lake, use_case, keys=keys, lanes=2) as views,
        connect() as con,
    ):
        found = labels.from_sql(use_case, views, periods, con)
        monkeypatch.setattr(labels, "groups_of", lambda *_: None)
        whole = labels.from_sql(use_case, views, periods, con)
    assert sum(map(len, whole.values())) > 30
    assert found == whole
    by_groups = len(keys) if sql != RENAMED else 0
    assert len(kept) == by_groups, "the query is asked by its groups"


def test_only_the_groups_of_which_something_changed_are_read(tmp_path: Path) -> None:
    """Of three customers one gets a row on the second day, and one becomes due; the third stays."""
    use_case, lake = case(QUERIES["of a customer and a moment"]), Lake(str(tmp_path / "lake"))
    schema = curated_schema(use_case.sources["orders"])

    def order(number: int, customer: int, happened: datetime, due: datetime) -> dict[str, Any]:
        return {
            "order_id": number,
            "customer_id": customer,
            "due_at": due,
            "amount": 10.0,
            "event_timestamp": happened,
            "created_timestamp": happened,
        }

    due, later = FIRST - 10 * HOUR, FIRST + 90 * HOUR
    days = {
        "2026-01-01": [
            order(1, 1, FIRST, later),
            order(2, 2, FIRST, due),
            order(3, 3, FIRST, later),
        ],
        "2026-01-02": [order(4, 1, FIRST + 25 * HOUR, later)],
    }
    for key, rows in days.items():
        lake.replace("shop/curated/orders", key, pa.Table.from_pylist(rows, schema=schema))
    with AsOfViews(connect(alone=True), lake, use_case, keys=[*days]) as views, connect() as con:
        labels.from_sql(use_case, views, [partitions.period(use_case, "2026-01-02")], con)
        kept = views.query('SELECT customer_id AS c FROM "__changed"').column("c").to_pylist()
    assert kept == [1, 2, 1]
