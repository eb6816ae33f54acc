"""The point-in-time join at size, its floor (to read the rows) and Feast's own store beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.lake.sql import TIMESTAMP, connect
from include.lake.tables import Lake

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 60
DAY = 86_400_000_000  # microseconds
TTL = timedelta(days=30)
TABLE = "size/features"
FEATURES = ("balance", "limit_used", "mean_delay", "payments", "days_since", "segment")


def prepare(folder: Path, rows: int, decisions: int) -> None:
    """Write feature rows as a table of the lake, a partition a day, and the decisions beside it.

    A tenth as many entities as rows; one row of fifty is restated days later.
    """
    if (folder / "spine.parquet").exists():
        return
    random, entities = np.random.default_rng(0), max(rows // 10, 1)
    lake, start = Lake(str(folder / "lake")), int(FIRST.timestamp()) * 1_000_000
    per_day = rows // DAYS
    for day in range(DAYS):
        event = start + day * DAY + random.integers(0, DAY, per_day)
        late = random.random(per_day) < 0.02
        created = event + random.integers(0, DAY // 24, per_day) + late * 5 * DAY
        lake.replace(
            TABLE,
            (FIRST + timedelta(days=day)).date().isoformat(),
            pa.table(
                {
                    "customer_id": random.integers(0, entities, per_day),
                    "event_timestamp": pa.array(event).cast(TIMESTAMP),
                    "created_timestamp": pa.array(created).cast(TIMESTAMP),
                    "balance": random.normal(1000, 300, per_day),
                    "limit_used": random.random(per_day),
                    "mean_delay": random.exponential(3, per_day),
                    "payments": random.integers(0, 50, per_day),
                    "days_since": random.integers(0, 400, per_day),
                    "segment": pa.array(
                        np.array(["a", "b", "c", "d"])[random.integers(0, 4, per_day)]
                    ),
                }
            ),
        )
    moments = start + random.integers(20 * DAY, (DAYS + 2) * DAY, decisions)
    spine = pa.table(
        {
            "customer_id": random.integers(0, entities, decisions),
            "event_timestamp": pa.array(np.sort(moments)).cast(TIMESTAMP),
        }
    )
    pq.write_table(spine, folder / "spine.parquet")


def read(folder: Path) -> Callable[[], Any]:
    """Return the floor: DuckDB reads all columns of all rows, and the decisions, into Arrow."""
    con, lake = connect(), Lake(str(folder / "lake"))
    names = ", ".join(["customer_id", "event_timestamp", "created_timestamp", *FEATURES])

    def act() -> Any:
        spine = pq.read_table(folder / "spine.parquet")
        lake.scan(con, "features", TABLE)
        found = con.sql(f"SELECT {names} FROM features").to_arrow_table()
        return [len(spine), len(found)]

    return act


def ours(folder: Path) -> Callable[[], Any]:
    """Return our join, from the lake's table to Arrow."""
    from include.point_in_time.join import as_of_join

    con, lake = connect(), Lake(str(folder / "lake"))

    def act() -> Any:
        spine = pq.read_table(folder / "spine.parquet")
        lake.scan(con, "features", TABLE)
        found = as_of_join(con, spine, "features", key="customer_id", ttl=TTL, columns=FEATURES)
        return [len(found), len(found) - found.column("balance").null_count]

    return act


def feast(folder: Path) -> Callable[[], Any]:
    """Return the peer: Feast's stock offline store over one Parquet file of the same rows.

    It may give back fewer rows than were asked: the answer says how many.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig
    from feast.infra.offline_stores.file_source import FileSource
    from feast.types import Float64, Int64, String
    from feast.value_type import ValueType

    single = folder / "features.parquet"
    if not single.exists():
        names = ["customer_id", "event_timestamp", "created_timestamp", *FEATURES]
        pq.write_table(Lake(str(folder / "lake")).read(TABLE, columns=names), single)
    config = RepoConfig(
        project="size",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "file"},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
    )
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
    types = (Float64, Float64, Float64, Int64, Int64, String)
    view = FeatureView(
        name="size",
        entities=[customer],
        ttl=TTL,
        schema=[Field(name=name, dtype=kind) for name, kind in zip(FEATURES, types, strict=True)],
        source=FileSource(
            path=str(single),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    store = FeatureStore(config=config)
    store.apply([customer, view])
    spine = pq.read_table(folder / "spine.parquet").to_pandas()

    def act() -> Any:
        job = store.get_historical_features(
            entity_df=spine, features=[f"size:{name}" for name in FEATURES]
        )
        found = job.to_arrow()
        return [len(found), len(found) - found.column("balance").null_count]

    return act
