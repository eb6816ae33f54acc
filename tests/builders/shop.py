"""A tiny use case whose curated tables are written by hand: what the tests of features, frames
and online rows share.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.features.feature_sets import FeatureSet, current
from include.lake.digests import digest
from include.lake.tables import Lake
from include.pipeline import execution, ranges, runner
from include.point_in_time import partitions
from include.point_in_time.curated import curated_schema, curated_table, label_schema
from include.records.records import AuditEntry, Mode, Model, Records, StageResult

T0 = datetime(2025, 1, 1, tzinfo=UTC)
DAY, HOUR, US = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
YAML = """
name: shop
owner: shop-team
history: {first: 2025-01-01}
availability: 0s
entity: {name: customer, key: customer_id}
sources:
  orders:
    path: "orders-{partition}.csv"
    key: [order_id]
    columns:
      order_id: {type: int64}
      customer_id: {type: int64}
      amount: {type: float64}
      event_timestamp: {type: timestamp}
      created_timestamp: {type: timestamp}
  visits:
    path: "visits-{partition}.csv"
    empty: allow
    key: [customer_id, event_timestamp]
    columns:
      customer_id: {type: int64}
      pages: {type: int64}
      device: {type: string}
      event_timestamp: {type: timestamp}
      created_timestamp: {type: timestamp}
label: {source: orders, column: amount, delay: 5d}
features:
  spending:
    sql: >-
      SELECT customer_id, count(*) AS orders_5d, sum(amount) AS amount_5d,
      max(event_timestamp) > getvariable('as_of') - INTERVAL 1 DAY AS today
          FROM orders GROUP BY customer_id
    lookback: 5d
    ttl: 3d
    description: What a customer spent.
    columns: {orders_5d: int64, amount_5d: float64, today: bool}
  visit:
    grain: event
    source: visits
    visible: with_request
    ttl: 4d
    columns: {pages: int64, device: string}
"""


class Shop:
    """One home with one use case; days are numbered from 2025-01-01."""

    def __init__(self, home: Path, yaml: str = YAML, **settings: Any) -> None:
        self.folder = home / "usecases"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.define(yaml)
        self.settings = Settings(home=home, usecases=str(self.folder), **settings)
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)

    def define(self, yaml: str) -> None:
        """Write the use case's file."""
        (self.folder / "shop.yaml").write_text(yaml)

    @property
    def use_case(self) -> UseCase:
        """The use case as its file says now."""
        return find("shop", self.settings.usecase_dirs)

    @property
    def feature_set(self) -> FeatureSet:
        """The feature set that the use case defines now."""
        return current(self.use_case)

    def key(self, day: int) -> str:
        """Return the key of a day."""
        return (T0 + day * DAY).date().isoformat()

    def as_of(self, day: int) -> datetime:
        """Return the `as_of` of a day's partition."""
        return partitions.period(self.use_case, self.key(day)).as_of

    def arrive(
        self,
        day: int,
        orders: Sequence[tuple[Any, ...]] = (),
        visits: Sequence[tuple[Any, ...]] = (),
        state: str = "done",
    ) -> None:
        """Write a day's curated rows and record its validation.

        Orders are (order, customer, amount, event, created), visits (customer, pages, device,
        event, created).
        """
        key, sources = self.key(day), {}
        for name, rows in (("orders", orders), ("visits", visits)):
            schema = curated_schema(self.use_case.sources[name])
            columns = list(zip(*rows, strict=True)) or [()] * len(schema)
            table = pa.table(
                [
                    pa.array(column, field.type)
                    for column, field in zip(columns, schema, strict=True)
                ],
                schema=schema,
            )
            stored = curated_table(self.lake, self.use_case, name)
            self.lake.replace(stored, key, table)
            told = {
                "table": stored,
                "curated_digest": digest(table, sort_by=["event_timestamp"]),
                "rows": len(table),
            }
            sources[name] = told
        self.record("validate_data", key, state, {"sources": sources})

    def record(self, stage: str, key: str, state: str, outputs: dict[str, Any]) -> None:
        """Record a stage's result."""
        moment = datetime.now(UTC)
        with self.records.leases.claim(
            "shop", stage, key, owner="test", attempt=1, ttl=30
        ) as lease:
            answer = f"sha256:{stage}{key}"
            result = StageResult(
                "shop",
                key,
                stage,
                state,
                answer,
                "",
                outputs,
                [],
                "",
                "backfill",
                moment,
                moment,
                0.0,
                "none",
                lease.token,
            )
            self.records.results.commit(lease, result)

    def run(self, day: int, mode: Mode = "backfill", **options: Any) -> execution.Report:
        """Run the features stage for a day."""
        self.ask(day, mode)
        return runner.run(
            "materialize_features", "shop", self.key(day), settings=self.settings, **options
        )

    def ask(self, day: int, mode: Mode = "backfill") -> None:
        """Record that a day is wanted."""
        target = "deployed" if mode == "live" else "data"
        self.records.partitions.raise_to(
            "shop", self.key(day), mode=mode, target=target, actor="test", at=datetime.now(UTC)
        )

    def rows(self, view: str, day: int) -> list[dict[str, Any]]:
        """Return a view's rows of a day."""
        (found,) = [one for one in self.feature_set.views if one.name == view]
        names = found.schema.names
        return self.lake.read(found.table("shop"), keys=[self.key(day)]).select(names).to_pylist()

    def label(self, day: int, *rows: tuple[Any, ...]) -> None:
        """Write a day's labels: (customer, event, label time, created, label)."""
        schema = label_schema(self.use_case)
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
        ]
        self.lake.replace("shop/labels", self.key(day), pa.table(arrays, schema=schema))


def serve(shop: Shop, version: str) -> None:
    """Make a model of that feature set the champion."""
    model = Model(
        "shop",
        1,
        "sha256:m",
        shop.key(0),
        shop.as_of(0),
        "live",
        version,
        "bundle",
        state="challenger",
    )
    shop.records.models.add(model)
    entry = AuditEntry("test", "shop", "1", "test", {}, datetime.now(UTC))
    shop.records.routes.change("shop", set={"champion": 1}, entry=entry)


def arrive_week(shop: Shop, days: int = 7) -> None:
    """Let days arrive, with a correction of day 1 on day 3 and a late order of day 2 on day 4."""
    for day in range(days):
        start = T0 + day * DAY
        orders = [
            (day * 10 + n, n, 10.0 * n + day / 3, start + n * HOUR, start + (n + 1) * HOUR)
            for n in range(5)
        ]
        if day == 3:
            orders.append((11, 1, 999.0, T0 + DAY + HOUR, start + HOUR))
        if day == 4:
            orders.append((98, 2, 0.25, T0 + 2 * DAY + HOUR, start + HOUR))
        visits = [
            (n, n + day, "web" if n else None, start + HOUR, start + 2 * HOUR) for n in range(3)
        ]
        shop.arrive(day, orders, visits)


def run_days(shop: Shop, count: int, *, without: range = range(0)) -> None:
    """Let days arrive, and run the features stage for all but some of them."""
    for day in range(count):
        moment = T0 + day * DAY + HOUR
        shop.arrive(
            day, [(day, 1, 1.0 + day, moment, moment)], [(1 + day % 2, day, "web", moment, moment)]
        )
        shop.ask(day)
    keys = [shop.key(day) for day in range(count) if day not in without]
    assert {
        report.state
        for report in ranges.run_range("materialize_features", "shop", keys, settings=shop.settings)
    } == {"done"}
