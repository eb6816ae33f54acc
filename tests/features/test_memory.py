"""What a day takes of memory stays within the setting; what does not fit is spilled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.lake.digests import digest
from include.lake.sql import TIMESTAMP
from include.point_in_time.curated import curated_schema, curated_table
from tests.builders.shop import DAY, HOUR, T0, YAML, Shop

CUSTOMERS, DAYS = 150_000, 10


@pytest.mark.slow
def test_a_day_of_many_entities_stays_within_its_memory(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML.replace("lookback: 5d", f"lookback: {DAYS}d"))
    for day in range(DAYS):
        _deliver(shop, day)
    shop.ask(DAYS - 1)
    memory = 160 * 10**6
    small = _computed(shop, f"{memory // 10**6}MB")
    assert small["state"] == "done"
    assert small["gained"] <= memory
    assert small["spilled"] > 0


def _deliver(shop: Shop, day: int) -> None:
    """Write a day of orders, one a customer, and record its validation."""
    schema = curated_schema(shop.use_case.sources["orders"])
    numbers = np.arange(CUSTOMERS)
    at = np.datetime64((T0 + day * DAY + HOUR).replace(tzinfo=None), "us")
    times = pa.array(at + numbers.astype("timedelta64[us]")).cast(TIMESTAMP)
    columns = [numbers + day * CUSTOMERS, numbers, np.sqrt(numbers + day), times, times]
    table = pa.table([pa.array(column) for column in columns], schema=schema)
    stored = curated_table(shop.lake, shop.use_case, "orders")
    shop.lake.replace(stored, shop.key(day), table)
    orders: dict[str, Any] = {
        "table": stored,
        "curated_digest": digest(table, sort_by=["order_id"]),
        "rows": len(table),
    }
    none = {"table": "", "curated_digest": "", "rows": 0}
    sources = {"sources": {"orders": orders, "visits": none}}
    shop.record("validate_data", shop.key(day), "done", sources)


def _computed(shop: Shop, memory: str) -> dict[str, Any]:
    words = ["-m", "tests.features.measured", str(shop.settings.home), shop.key(DAYS - 1), memory]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told
