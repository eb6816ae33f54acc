"""Validation of a day at size, one scan that profiles it, and Great Expectations beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from include.lake.sql import connect
from tests.builders.installation import Installation
from tests.builders.intake import Intake

KEY = "2026-01-01"
SEGMENTS = ("retail", "small", "large", "public")
COLUMNS = """
      order_id: {type: int64, nullable: false}
      customer_id: {type: int64, nullable: false}
      amount: {type: float64, nullable: false, min: 0, max: 1000000}
      items: {type: int64, min: 1, max: 1000}
      segment: {type: string, nullable: false, values: [retail, small, large, public]}
      branch: {type: string, regex: "[A-Z]{2}-[0-9]{3}"}
      opened: {type: date}
      paid: {type: int64, values: ["0", "1"]}"""


def prepare(folder: Path, rows: int) -> None:
    """Ingest one day of so many orders, one of a hundred with a value that fails its rule."""
    if (folder / "contracts").exists():
        return
    made, random = Intake(folder / "contracts", columns=COLUMNS), np.random.default_rng(0)
    second = np.sort(random.integers(0, 86_000, rows))
    times = (np.datetime64(f"{KEY}T00:00:00") + second).astype(str)
    stamps = pa.array(np.char.add(times, "Z"))
    bad = random.random(rows) < 0.01
    orders = pa.table(
        {
            "order_id": np.arange(rows) + 1,
            "customer_id": random.integers(0, max(rows // 10, 1), rows),
            "event_timestamp": stamps,
            "created_timestamp": stamps,
            "amount": np.round(random.exponential(100, rows), 2),
            "items": np.where(bad, 0, random.integers(1, 20, rows)),
            "segment": np.array(SEGMENTS)[random.integers(0, 4, rows)],
            "branch": np.array([f"AB-{number:03}" for number in range(500)])[
                random.integers(0, 500, rows)
            ],
            "opened": np.array([f"2024-01-{day:02}" for day in range(1, 29)])[
                random.integers(0, 28, rows)
            ],
            "paid": random.integers(0, 2, rows),
        }
    )
    pa.csv.write_csv(orders, made.folder / "orders.csv")
    made.define(columns=COLUMNS, more="max_bad: 0.05")
    made.ingest(KEY)


def scan(folder: Path) -> Callable[[], Any]:
    """Return the floor: one DuckDB scan that types every column and counts what its rules say."""
    made, con = _installation(folder), connect()
    numbers, texts = ("order_id", "customer_id", "items", "paid"), ("segment", "branch")
    moments = ("event_timestamp", "created_timestamp")
    typed = [f"try_cast({name} AS BIGINT) AS {name}" for name in numbers]
    typed += [f"try_cast({name} AS TIMESTAMPTZ) AS {name}" for name in moments]
    typed += ["try_cast(amount AS DOUBLE) AS amount", "try_cast(opened AS DATE) AS opened", *texts]
    asked = [
        f"count(*) - count({name}), min({name}), max({name})"
        for name in (*numbers, *moments, *texts, "amount", "opened")
    ]
    asked += [
        "count(DISTINCT order_id)",
        "count_if(items NOT BETWEEN 1 AND 1000)",
        "count_if(amount NOT BETWEEN 0 AND 1000000)",
        "count_if(paid NOT IN (0, 1))",
        f"count_if(segment NOT IN {SEGMENTS})",
        "count_if(NOT regexp_full_match(branch, '[A-Z]{2}-[0-9]{3}'))",
    ]

    def act() -> Any:
        made.lake.scan(con, "raw", "shop/raw/orders", keys=[KEY])
        query = f"SELECT {', '.join(asked)} FROM (SELECT {', '.join(typed)} FROM raw)"
        con.execute(query).fetchall()

    return act


def ours(folder: Path) -> Callable[[], Any]:
    """Return the check of the day: typed rows, each bad one set aside with its rule, the suite."""
    from include.pipeline.ingest_outputs import IngestOutputs
    from include.validation.expectations import failures, limits
    from include.validation.partition_check import check_partitions

    made = _installation(folder)
    use_case = made.use_case
    (result,) = made.records.results.of("shop", stage="ingest_data")
    ingested = {KEY: IngestOutputs.of(result).sources}
    # Loads Great Expectations, as a worker has long done.
    failures(use_case, {KEY: {limit.column: 0 for limit in limits(use_case)}})

    def act() -> Any:
        checks, _ = check_partitions(made.lake, use_case, ingested, [KEY], lambda _: {})
        rows = checks[KEY].sources["orders"]
        return [len(rows.curated), len(rows.quarantine), checks[KEY].failed]

    return act


def great_expectations(folder: Path) -> Callable[[], Any]:
    """Return the peer: the same rules as a suite on pandas, which sets no row aside."""
    import great_expectations as gx
    from great_expectations import expectations as gxe

    from include.validation.expectations import _batch, _quiet

    made = _installation(folder)
    names = ("order_id", "customer_id", "items", "paid", "amount")
    rules = [gxe.ExpectColumnValuesToNotBeNull(column=name) for name in (*names, "segment")]
    rules += [
        gxe.ExpectColumnValuesToBeUnique(column="order_id"),
        gxe.ExpectColumnValuesToBeBetween(column="items", min_value=1, max_value=1000, mostly=0.9),
        gxe.ExpectColumnValuesToBeBetween(column="amount", min_value=0, max_value=1_000_000),
        gxe.ExpectColumnValuesToBeInSet(column="paid", value_set=[0, 1]),
        gxe.ExpectColumnValuesToBeInSet(column="segment", value_set=list(SEGMENTS)),
        gxe.ExpectColumnValuesToMatchRegex(column="branch", regex="^[A-Z]{2}-[0-9]{3}$"),
        gxe.ExpectColumnValuesToBeBetween(column="opened", min_value=pd.Timestamp("1900-01-01")),
    ]

    def act() -> Any:
        frame = made.lake.read("shop/raw/orders", keys=[KEY]).to_pandas()
        for name in names:
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
        for name in ("event_timestamp", "created_timestamp", "opened"):
            frame[name] = pd.to_datetime(frame[name], errors="coerce")
        with _quiet():
            suite = gx.ExpectationSuite(name="orders", expectations=rules)
            return bool(_batch(gx, "orders", frame).validate(suite).success)

    return act


def _installation(folder: Path) -> Installation:
    return Installation(folder / "contracts", "shop")
