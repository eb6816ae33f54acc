"""Lake tables as DuckDB views of the partitions that had arrived before a moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from include.config.use_case import UseCase
from include.lake.tables import Lake
from include.point_in_time import partitions


def scan_arrived(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    name: str,
    table: str,
    use_case: UseCase,
    as_of: datetime,
    *,
    version: int | None,
    schema: pa.Schema,
    keys: Sequence[str] | None = None,
    since: str | None = None,
) -> None:
    """Show the partitions of a table (`keys`, or all) that had arrived before `as_of` as a view.

    Those before the key `since` are left out. The view is called `name`; where the table is not
    there yet, it has no rows of `schema`.
    """
    # A partition has arrived when its own as_of is not after this one.
    newest = partitions.key_of(use_case, as_of - timedelta(microseconds=1))
    lake.scan(
        con, name, table, keys=keys, version=version, schema=schema, since=since, until=newest
    )
