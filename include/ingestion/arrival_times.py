"""The moments at which the rows of one read arrived, in microseconds of Unix time.

A row without a readable arrival takes that of the nearest earlier row of its file, else of the
first later one; where there is none, or rows stand in no order (SQL), it takes the fallback.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError, SourceError
from include.ingestion.columns import FILE, ROW, column_diff, headers
from include.ingestion.computed import moment_query, parts_of
from include.ingestion.sources import Delivery
from include.lake.sql import connect
from include.pipeline.ingest_outputs import FileHeader

MICRO = timedelta(microseconds=1)


def arrival_times(
    name: str, use_case: UseCase, delivery: Delivery, fallback: datetime
) -> tuple[Any, Any]:
    """Return each row's arrival (int64, microseconds), and whether it was guessed (bool).

    Raises:
        SourceError: the column that says when a row arrives is not there.
        ConfigError: the source's time zone is none.
    """
    source, rows = use_case.sources[name], delivery.rows
    if not rows.num_columns:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    column = source.event_time if source.assumed_lag is not None else source.arrival
    for each in parts_of([column], source) if column in source.computed else [column]:
        if each not in rows.column_names:
            raise SourceError(_missing_column(name, source, delivery, each))
    lag = (source.assumed_lag // MICRO) if source.assumed_lag is not None else 0
    with connect() as con:
        con.register("delivered", rows)
        try:
            moments = moment_query(column, source, rows.column_names, "delivered")
            times = con.sql(
                f"SELECT epoch_us(moment) + {lag} AS moment FROM ({moments})"
            ).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(
                f"{use_case.name}, source {name}: {str(error).splitlines()[0]}"
            ) from None
        guessed = np.asarray(times.column("moment").is_null())
        if guessed.any():
            times = _filled(con, delivery, times, to_micros(fallback))
    moments = times.column("moment").combine_chunks().to_numpy(zero_copy_only=False)
    return moments.astype(np.int64), guessed


def to_micros(moment: datetime) -> int:
    """Return a moment (aware, in UTC) as microseconds of Unix time."""
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))


def _filled(
    con: duckdb.DuckDBPyConnection, delivery: Delivery, times: pa.Table, fallback: int
) -> pa.Table:
    """Return times without nulls: each takes that of a neighbour in its file, else the fallback."""
    # Without an order, as a database gives rows, there are no neighbours.
    if not delivery.ordered:
        con.register("times", times)
        return con.sql(f"SELECT coalesce(moment, {fallback}) AS moment FROM times").to_arrow_table()
    con.register(
        "times",
        times.append_column("file", delivery.rows.column(FILE))
        .append_column("row", delivery.rows.column(ROW))
        .append_column("place", pa.array(np.arange(len(times)))),
    )
    # An earlier row comes first: a broken line then stays in the partition of the line above it,
    # whatever is appended to the file.
    return con.sql(
        "SELECT coalesce(moment, last_value(moment IGNORE NULLS) OVER earlier, "
        f"first_value(moment IGNORE NULLS) OVER later, {fallback}) AS moment FROM times "
        "WINDOW earlier AS (PARTITION BY file ORDER BY row, place ROWS BETWEEN UNBOUNDED "
        "PRECEDING AND CURRENT ROW), later AS (PARTITION BY file ORDER BY row, place ROWS "
        "BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) ORDER BY place"
    ).to_arrow_table()


def _missing_column(name: str, source: Source, delivery: Delivery, column: str) -> str:
    seen = [
        FileHeader(columns=list(header), files=[file]) for file, header in delivery.headers.items()
    ]
    header = {value: key for key, value in headers(source).items()}.get(column, column)
    return (
        f"source {name}: column {header!r} says when a row arrives, and is not there "
        f"({column_diff(source, seen).text(source)}). Deliver it, or correct arrival and "
        "event_time in the use case"
    )
