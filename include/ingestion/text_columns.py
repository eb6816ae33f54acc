"""Text columns in an Arrow file: what a file of any format is turned into, within limits.

Part of the child process that opens foreign files (`file_worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.ingestion.decompression import Refused

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
                f"{index + 1}: {first!r}, {name!r})"
            )


def open_database(temporary: str) -> duckdb.DuckDBPyConnection:
    """Open a database in UTC that spills into a folder and reaches for no extension."""
    con = duckdb.connect(
        ":memory:",
        config={"threads": 2, "memory_limit": "2GB", "autoinstall_known_extensions": False},
    )
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET temp_directory = '{temporary}'")
    return con


def write_columns(
    con: duckdb.DuckDBPyConnection, query: str, out: Path, values: dict[str, str], width: int
) -> int:
    """Write a query's rows to an Arrow file and return their number.

    The first `width` columns are text.

    Raises:
        Refused: a cell is larger than any business value.
    """
    reader = con.sql(query, params=values).to_arrow_reader(BATCH)
    rows = 0
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, reader.schema) as writer:
        for batch in reader:
            for index in range(width):
                longest = pc.max(pc.binary_length(batch.column(index))).as_py() or 0
                if longest > MAX_CELL:
                    raise Refused(
                        f"has a cell of {longest} bytes in column {index + 1}; a cell holds at "
                        f"most {MAX_CELL >> 20} MB"
                    )
            rows += len(batch)
            writer.write_batch(batch)
    return rows


def write_no_columns(out: Path) -> None:
    """Write an Arrow file without rows and without columns of a source."""
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, pa.schema([("row", pa.int64())])):
        pass
