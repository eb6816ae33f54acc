"""Feather (Arrow IPC) files as text columns; part of the child process that opens foreign files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import feather

from include.ingestion.decompression import MAX_BYTES, Refused, first_line
from include.ingestion.parquet_columns import MAX_ROWS, readable_schema
from include.ingestion.text_columns import check_columns, open_database, write_typed

_BATCH = 65_536  # rows


def convert_feather(
    path: Path, out: Path, temporary: str, wanted: Sequence[str]
) -> tuple[list[str], int, dict[str, str]]:
    """Turn a Feather file, of version 1 or 2, into text columns, as a Parquet file is.

    Returns their names, the number of rows, and the columns with more than one value a row, with
    their types: they are left out.

    Raises:
        Refused: it is damaged or too large, or a column that is wanted has more than one value a
            row.
    """
    with path.open("rb") as file:
        first = file.read(4) == b"FEA1"
    too_large: list[Refused] = []
    with pa.memory_map(str(path)) as mapped:
        try:
            if first:
                batches, schema = _first_version(path)
            else:
                opened = pa.ipc.open_file(mapped)
                batches, schema = _batches(opened, too_large), opened.schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Refused(
                f"is no whole Feather file: it ends at byte {path.stat().st_size} without a valid "
                f"footer ({first_line(error)}); export it again"
            ) from None
        check_columns(schema.names)
        with open_database(temporary) as con:
            kept = readable_schema(schema)
            read = (batch.cast(kept) for batch in batches)
            con.register("delivered", pa.RecordBatchReader.from_batches(kept, read))
            try:
                return write_typed(con, "delivered", out, schema.names, wanted)
            except (duckdb.Error, pa.ArrowException):
                if too_large:  # through Arrow's C stream it comes out as another error's text
                    raise too_large[0] from None
                raise


def _batches(
    file: pa.ipc.RecordBatchFileReader, too_large: list[Refused]
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file, each checked: offsets of a hostile one could point anywhere.

    Of a file that is too large the refusal is put into `too_large` as well.
    """
    rows = size = 0
    for index in range(file.num_record_batches):
        batch = file.get_batch(index)
        batch.validate(full=True)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows > MAX_ROWS or size > MAX_BYTES:
            too_large.append(
                Refused(f"holds more than {MAX_ROWS} rows or {MAX_BYTES >> 30} GB; split it")
            )
            raise too_large[0]
        yield batch


def _first_version(path: Path) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """Return batches and schema of a file of version 1, which is read as a whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that pyarrow will read no such files some day
        table = feather.read_table(path, memory_map=False)
    table.validate(full=True)
    return iter(table.to_batches(_BATCH)), table.schema
