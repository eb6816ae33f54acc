"""Parquet files as text columns; part of the child process that opens foreign files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from include.ingestion.decompression import MAX_BYTES, Refused, first_line
from include.ingestion.text_columns import (
    check_columns,
    open_database,
    write_no_columns,
    write_typed,
)
from include.lake.sql import LOSES_ORDER

MAX_ROWS = 500_000_000


def convert_parquet(
    path: Path, out: Path, temporary: str, wanted: Sequence[str]
) -> tuple[list[str], int, dict[str, str]]:
    """Turn a Parquet file into text columns.

    Returns their names, the number of rows, and the columns with more than one value a row, with
    their types: they are left out.

    Raises:
        Refused: it is damaged or too large, or a column that is wanted has more than one value a
            row.
    """
    size = path.stat().st_size
    if size == 0:
        write_no_columns(out)
        return [], 0, {}
    try:
        meta = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise Refused(
            f"is no whole Parquet file: it ends at byte {size} without a valid footer "
            f"({first_line(error)})"
        ) from None
    columns = list(meta.schema.to_arrow_schema().names)
    check_columns(columns)
    declared = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
    if meta.num_rows > MAX_ROWS or declared > MAX_BYTES:
        raise Refused(
            f"declares {meta.num_rows} rows and {declared} bytes; at most {MAX_ROWS} rows and "
            f"{MAX_BYTES >> 30} GB are read"
        )
    with open_database(temporary) as con:
        # The statistics of a Parquet file leave NaN out: with them, isnan() is false of every row,
        # and a text is a constant.
        con.execute(f"SET disabled_optimizers = '{LOSES_ORDER},statistics_propagation'")
        return write_typed(
            con, "read_parquet($path)", out, columns, wanted, values={"path": str(path)}
        )
