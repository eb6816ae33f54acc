"""Text columns in an Arrow file: what a file of any format is turned into, within limits.

Part of the child process that opens foreign files (`file_worker`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.ingestion.decompression import Refused
from include.lake.sql import LOSES_ORDER, quote

MAX_COLUMNS = 2_000
MAX_LINE = 4 << 20  # bytes
MAX_CELL = 1 << 20  # bytes
MAX_HEADER = 256 * 1024  # bytes
KEPT_LINE = 2_000  # characters of a malformed line
BATCH = 65_536  # rows


def check_columns(names: Sequence[str]) -> None:
    """Refuse too many columns, and names that differ by case alone, which DuckDB takes for one."""
    if len(names) > MAX_COLUMNS:
        raise Refused(f"has {len(names)} columns; at most {MAX_COLUMNS} are read")
    lowered = [name.lower() for name in names]
    for index, name in enumerate(names):
        if lowered.index(name.lower()) != index:
            first = names[lowered.index(name.lower())]
            raise Refused(
                f"has the column {name!r} twice (columns {lowered.index(name.lower()) + 1}, "
                f"{index + 1}: {first!r}, {name!r}): call one otherwise, or, of a CSV, write "
                "header: false and skip: 1 under the source, and name it by its place, {header: "
                f"c{index + 1}}}"
            )


def open_database(temporary: str) -> duckdb.DuckDBPyConnection:
    """Open a database in UTC that spills into a folder and reaches for no extension."""
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": 2,
            "memory_limit": "2GB",
            "autoinstall_known_extensions": False,
            "disabled_optimizers": LOSES_ORDER,
        },
    )
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET temp_directory = '{temporary}'")
    return con


def write_columns(
    con: duckdb.DuckDBPyConnection, query: str, out: Path, values: Mapping[str, str], width: int
) -> int:
    """Write a query's rows to an Arrow file and return their number.

    The first `width` columns are text.

    Raises:
        Refused: a cell is larger than any business value.
    """
    reader = con.sql(query, params=dict(values)).to_arrow_reader(BATCH)
    rows = 0
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, reader.schema) as writer:
        for batch in reader:
            check_cells(batch, width)
            rows += len(batch)
            writer.write_batch(batch)
    return rows


def check_cells(batch: pa.RecordBatch, width: int) -> None:
    """Refuse a cell, in the first `width` columns, that is larger than any business value."""
    for index in range(width):
        longest = pc.max(pc.binary_length(batch.column(index))).as_py() or 0
        if longest > MAX_CELL:
            raise Refused(
                f"has a cell of {longest} bytes in column {index + 1}; a cell holds at "
                f"most {MAX_CELL >> 20} MB"
            )


def write_rows(rows: Iterator[Sequence[str | None] | None], out: Path, width: int) -> int:
    """Write rows of texts to an Arrow file, with their numbers, and return how many there are.

    None has a number and is no row.

    Raises:
        Refused: a cell is larger than any business value.
    """
    fields = [pa.field(f"c{index}", pa.string()) for index in range(width)]
    schema = pa.schema([*fields, pa.field("row", pa.int64())])
    count, numbered = 0, enumerate(rows, 1)
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while read := list(islice(numbered, BATCH)):
            part = [(number, row) for number, row in read if row is not None]
            columns = zip(*(row for _, row in part), strict=True) if part else [()] * width
            arrays = [pa.array(column, pa.string()) for column in columns]
            numbers = pa.array([number for number, _ in part], pa.int64())
            batch = pa.record_batch([*arrays, numbers], schema=schema)
            check_cells(batch, width)
            writer.write_batch(batch)
            count += len(part)
    return count


def write_typed(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    out: Path,
    columns: Sequence[str],
    wanted: Sequence[str],
    *,
    values: Mapping[str, str] | None = None,
) -> tuple[list[str], int, dict[str, str]]:
    """Write the typed rows of a relation as text columns.

    `columns` are the file's own names of the relation's columns, in their order. Returns those that
    were written, the number of rows, and the columns with more than one value a row, with their
    types: they are left out.

    Raises:
        Refused: a column that is `wanted` has more than one value a row.
    """
    given = dict(values or {})
    described = con.execute(f"DESCRIBE SELECT * FROM {relation}", given).fetchall()
    kinds = {name: (row[0], row[1]) for name, row in zip(columns, described, strict=True)}
    # By the beginning or end of DuckDB's name of a type: INTEGER[], STRUCT(...), MAP(...).
    nested = {
        name: kind[:60]
        for name, (_, kind) in kinds.items()
        if re.search(r"\]$|^(STRUCT|MAP|UNION|VARIANT)", kind)
    }
    if lost := [name for name in nested if name in wanted]:
        raise Refused(
            f"column {lost[0]!r} holds {nested[lost[0]]}, more than one value a row; write "
            "flat columns, or leave it out"
        )
    flat = [name for name in columns if name not in nested]
    picked = "".join(
        f"{_typed_text(*kinds[name])} AS c{index}, " for index, name in enumerate(flat)
    )
    query = f"SELECT {picked}row_number() OVER () AS row FROM {relation}"
    return flat, write_columns(con, query, out, given, len(flat)), nested


def _typed_text(name: str, kind: str) -> str:
    """Return the expression of a typed value as text.

    Bytes that are UTF-8 are text, and NaN is no value.
    """
    column = quote(name)
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN NOT isnan({column}) THEN CAST({column} AS VARCHAR) END"
    if kind == "BLOB":
        return f"coalesce(TRY(decode({column})), CAST({column} AS VARCHAR))"
    return f"CAST({column} AS VARCHAR)"


def write_no_columns(out: Path) -> None:
    """Write an Arrow file without rows and without columns of a source."""
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, pa.schema([("row", pa.int64())])):
        pass
