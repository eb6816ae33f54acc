"""A small simulated portfolio, and its rows as numbers."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.durations import midnight
from include.simulation import streams as simulation

START = date(2026, 1, 1)
SMALL: dict[str, Any] = {"seed": 5, "customers": 400, "start": START}
STREAMS = ("instalments", "contacts")


def at(day: int, hours: int = 0) -> datetime:
    return midnight(START) + timedelta(days=day, hours=hours)


def arrived(stream: str, first: int, until: int, **changes: Any) -> pa.Table:
    return simulation.arrivals(stream, at(first), at(until), **{**SMALL, **changes})


def own(rows: pa.Table) -> pa.Array:
    """Tell which rows are no damaged copies (whose ids have 16 digits, or are missing)."""
    return pc.less(pc.cast(pc.fill_null(rows.column(0), "9" * 18), pa.int64()), 10**15)


def sound(rows: pa.Table) -> pa.Table:
    """The rows without damaged copies and without second copies."""
    return rows.filter(own(rows)).group_by(rows.column_names, use_threads=False).aggregate([])


def moments(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([text.rstrip("Z") for text in column.to_pylist()], dtype="datetime64[s]")
