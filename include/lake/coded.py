"""Rows of a table whose repeated texts are held once, as the files hold them.

Parquet writes a column of few distinct texts as those texts and a number a row. Whoever asks
something of each text alone asks it of the distinct ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.lake.sql import PARTITION
from include.lake.tables import Lake

# Bytes a row: what is wider has mostly texts of its own, and to look each up costs more than it
# saves. A number a row takes two to three, texts of which each stands in ten rows as many more.
# Only speed hangs on it.
WIDEST = 6
# Rows of a sample, and the share of distinct texts in it at which a text stands in the whole of a
# million rows about three times.
SAMPLE, REPEATED = 10_000, 0.98
CODED = pa.dictionary(pa.int32(), pa.string())


def read_coded(lake: Lake, table: str, keys: Sequence[str]) -> pa.Table:
    """Return the rows of some partitions, with `partition`; repeated texts are dictionaries.

    Of a column there is one dictionary. Rows are in the order of the partitions and their files.
    Keys are dates, which stand in paths as they are.
    """
    paths, schema = lake.files(table, keys=keys), lake.schema(table)
    assert schema is not None
    files = [pq.ParquetFile(path) for path in paths]
    coded = _repeated(files, schema)
    wanted = pa.schema(
        [field.with_type(CODED) if field.name in coded else field for field in schema]
    )
    parts = []
    for path, file in zip(paths, files, strict=True):
        # Opened anew: which columns come as dictionaries is said when a file is opened.
        names = sorted(coded & set(file.schema_arrow.names))
        rows = pq.ParquetFile(path, metadata=file.metadata, read_dictionary=names).read(
            use_threads=False
        )
        key = path.rsplit("/", 2)[-2].removeprefix(f"{PARTITION}=")
        parts.append(
            rows.append_column(
                PARTITION,
                pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), [key]),
            )
        )
    kind = pa.field(PARTITION, CODED)
    # A file may be older than a column that the table gained: there it is null.
    empty = pa.schema([*wanted, kind]).empty_table()
    rows = pa.concat_tables([empty, *parts], promote_options="default")
    rows = rows.unify_dictionaries().combine_chunks()
    # A file stops to number texts at a megabyte of them: some columns that repeat are left.
    sample = pa.array(_places(len(rows)))
    for index, field in enumerate(rows.schema):
        column = rows.column(index)
        if pa.types.is_string(field.type) and len(rows) > SAMPLE:
            distinct = len(column.take(sample).unique())
            if distinct <= REPEATED * SAMPLE:
                rows = rows.set_column(index, field.name, column.dictionary_encode())
    return rows


def _places(rows: int) -> Any:
    """Return the places of a sample, each once: a row taken twice would look like a repeated text.

    Evenly spread places would miss that texts of sorted rows repeat. The seed is fixed.
    """
    return np.random.default_rng(0).choice(rows, min(rows, SAMPLE), replace=False, shuffle=False)


def _repeated(files: Sequence[pq.ParquetFile], schema: pa.Schema) -> set[str]:
    """Return the columns of text that the files hold in few bytes a row."""
    texts = {field.name for field in schema if pa.types.is_string(field.type)}
    sizes, rows = dict.fromkeys(texts, 0), 0
    for file in files:
        metadata = file.metadata
        rows += metadata.num_rows
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                if column.path_in_schema in sizes:
                    sizes[column.path_in_schema] += column.total_uncompressed_size
    return {name for name, size in sizes.items() if size <= WIDEST * rows}


def plain(rows: pa.Table) -> pa.Table:
    """Return rows whose values stand each in its row, as everybody else reads them."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            column = rows.column(index).cast(field.type.value_type)
            rows = rows.set_column(index, field.name, column)
    return rows
