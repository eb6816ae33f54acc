"""Rows of a table whose repeated texts are held once, as the files hold them.

Parquet writes a column of few distinct texts as those texts and a number a row. Whoever asks
something of each text alone asks it of the distinct ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.errors import SourceError
from include.lake.ordering import find_blocks
from include.lake.sql import PARTITION
from include.lake.tables import Lake

# Bytes a row: what is wider has mostly texts of its own, and to look each up costs more than it
# saves. A number a row takes two to three, texts of which each stands in ten rows as many more.
# Only speed hangs on it.
WIDEST = 6
# Rows of a sample, and the share of distinct texts in it at which a text stands in the whole of a
# million rows about three times.
SAMPLE, REPEATED = 10_000, 0.98
MOST_OPEN = 64
CODED = pa.dictionary(pa.int32(), pa.string())


def read_coded(lake: Lake, table: str, keys: Sequence[str], *, number: str, of: str) -> pa.Table:
    """Return the rows of some partitions, with `partition`; repeated texts are dictionaries.

    Of a column there is one dictionary. Rows are in the order of the partitions and their files;
    where the column `number` counts the rows of what `of` names, in that order: the table's writer
    lays blocks of rows down as it gets done with them. Keys are dates, which stand in paths as they
    are.

    Raises:
        SourceError: there is no table.
    """
    paths, schema = lake.files(table, keys=keys), lake.schema(table)
    if schema is None:
        raise SourceError(f"lake table {table} does not exist; run the stage that writes it first")
    # A process may hold so many files open: of more of them, which are small, the bytes are read.
    is_many = len(paths) > MOST_OPEN
    given = [pa.py_buffer(Path(path).read_bytes()) for path in paths] if is_many else paths
    kinds = [pq.read_metadata(_source(each)) for each in given]
    coded = _repeated(kinds, schema) | {of}
    files = [
        pq.ParquetFile(
            _source(each),
            metadata=kind,
            read_dictionary=sorted(coded & set(kind.schema.to_arrow_schema().names)),
        )
        for each, kind in zip(given, kinds, strict=True)
    ]

    def read(name: str) -> pa.ChunkedArray:
        return _read(files, name, CODED if name in coded else schema.field(name).type)

    partition = _partitions(paths, files)
    places = {name: read(name) for name in (number, of)}
    blocks = find_blocks([partition, one_chunk(places[of])], one_chunk(places[number]))
    columns = {}
    # One column after the other: what it takes to put one into order and its texts into a
    # dictionary is given back before the next is read.
    for name in schema.names:
        column = places.pop(name) if name in places else read(name)
        if blocks:
            slices = (column.slice(*block) for block in blocks)
            column = _combined(
                pa.chunked_array([chunk for each in slices for chunk in each.chunks])
            )
        columns[name] = _encoded(column)
    return pa.table(columns | {PARTITION: partition})


def _source(given: str | pa.Buffer) -> str | pa.BufferReader:
    """Return what a file is read from: its path, or the bytes that were read of it."""
    return given if isinstance(given, str) else pa.BufferReader(given)


def _read(files: Sequence[pq.ParquetFile], name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column of some files, with one dictionary where its type has one."""
    chunks = []
    for file in files:
        if name in file.schema_arrow.names:
            chunks += file.read(columns=[name], use_threads=False).column(0).chunks
        else:  # the file is older than the column
            chunks.append(pa.nulls(file.metadata.num_rows, kind))
    column = pa.chunked_array(chunks, kind)
    return _combined(column.unify_dictionaries() if pa.types.is_dictionary(kind) else column)


def _partitions(paths: Sequence[str], files: Sequence[pq.ParquetFile]) -> pa.DictionaryArray:
    """Return the partition of each row of some files, which stands in their paths."""
    keys = [path.rsplit("/", 2)[-2].removeprefix(f"{PARTITION}=") for path in paths]
    distinct, places = np.unique(np.array(keys, str), return_inverse=True)
    codes = np.repeat(places, [file.metadata.num_rows for file in files]).astype(np.int32)
    return pa.DictionaryArray.from_arrays(codes, pa.array(distinct.tolist(), pa.string()))


def _encoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts that repeat as a dictionary.

    A file stops to number texts at a megabyte of them, so some columns that repeat come plain.
    """
    if not pa.types.is_string(column.type) or len(column) <= SAMPLE:
        return column
    distinct = len(column.take(pa.array(_places(len(column)))).unique())
    return column.dictionary_encode() if distinct <= REPEATED * SAMPLE else column


def _combined(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in one chunk, or in as many as its texts need."""
    return pa.table({"": column}).combine_chunks().column(0) if column.num_chunks > 1 else column


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; not copied where it is one already, as Arrow would."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _places(rows: int) -> Any:
    """Return the places of a sample, each once: a row taken twice would look like a repeated text.

    Evenly spread places would miss that texts of sorted rows repeat. The seed is fixed.
    """
    return np.random.default_rng(0).choice(rows, min(rows, SAMPLE), replace=False, shuffle=False)


def _repeated(files: Sequence[pq.FileMetaData], schema: pa.Schema) -> set[str]:
    """Return the columns of text that the files hold in few bytes a row."""
    texts = {field.name for field in schema if pa.types.is_string(field.type)}
    sizes, rows = dict.fromkeys(texts, 0), 0
    for metadata in files:
        rows += metadata.num_rows
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                if column.path_in_schema in sizes:
                    sizes[column.path_in_schema] += column.total_uncompressed_size
    return {name for name, size in sizes.items() if size <= WIDEST * rows}


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column whose values stand each in its row, as everybody else reads them."""
    is_coded = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_coded else column
