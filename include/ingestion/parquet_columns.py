"""Parquet files as text columns; part of the child process that opens foreign files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from include.ingestion.decompression import MAX_BYTES, Refused, first_line
from include.ingestion.text_columns import (
    BATCH,
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
    schema = meta.schema.to_arrow_schema()
    columns = list(schema.names)
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
        if any(pa.types.is_decimal256(field.type) for field in schema):
            # DuckDB reads them as doubles, by which keys of more than 15 digits become one.
            with pq.ParquetFile(path) as file:
                kept = readable_schema(file.schema_arrow)
                batches = (batch.cast(kept) for batch in file.iter_batches(BATCH))
                con.register("delivered", pa.RecordBatchReader.from_batches(kept, batches))
                return write_typed(con, "delivered", out, columns, wanted)
        # A file says what it holds, wherever it lies: of folders such as `day=2024-01-01` DuckDB
        # would make columns, also in place of the file's own.
        delivered = "read_parquet($path, hive_partitioning = false)"
        return write_typed(con, delivered, out, columns, wanted, values={"path": str(path)})


def readable_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema in which DuckDB takes each column as it is.

    A decimal of more than 38 digits is text, half a float is one, and a duration the number that
    Parquet has for it.
    """
    fields = []
    for field in schema:
        kind = field.type
        if pa.types.is_decimal256(kind):
            kind = pa.string()
        elif pa.types.is_float16(kind):
            kind = pa.float32()
        elif pa.types.is_duration(kind):
            kind = pa.int64()
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)
