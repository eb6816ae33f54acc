"""Ids of rows that have none: the digest of what was delivered, and the number of the copy.

The outcome does not count, so a row keeps its id when its outcome comes or is corrected. Neither do
file and place: a row is the same however a table is cut or sorted, but for the order of its copies.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.ingestion.columns import FILE, MALFORMED, ROW
from include.ingestion.computed import parts_of
from include.lake.sql import connect, quote, text_literal
from include.point_in_time.row_copies import LENGTH


def with_row_digest(rows: pa.Table, column: str, use_case: UseCase, name: str) -> pa.Table:
    """Return delivered rows of a source with the column of their ids; a broken line has none."""
    if not rows.num_columns:
        return rows
    left_out = {FILE, ROW, MALFORMED, column, *_outcome(use_case, name)}
    cells = sorted(each for each in rows.column_names if each not in left_out)
    # Each cell with its name and length, so that none runs into another. One without a value is
    # left out: a column that a later delivery brings changes no id of an earlier one.
    texts = [
        f"coalesce({text_literal(each + ':')} || strlen({quote(each)}) || ':' || {quote(each)} || "
        "';', '')"
        for each in cells
    ]
    broken = MALFORMED in rows.column_names
    with connect() as con:
        con.register("delivered", rows)
        whole = f"sha256(concat({', '.join(texts)}))" if texts else "sha256('')"
        found = f"left({whole}, {LENGTH})"
        if broken:
            found = f"CASE WHEN {MALFORMED} IS NULL THEN {found} END"
        digests = con.sql(f"SELECT {found} AS digest FROM delivered").to_arrow_table().column(0)
    ids = pc.binary_join_element_wise(digests, _copies(digests), "-")
    return rows.append_column(column, ids)


def digest_of_row(cells: Mapping[str, str], use_case: UseCase, name: str) -> str:
    """Return the id of one row, as of the first of its copies."""
    made = str(use_case.sources[name].row_digest)
    columns = {each: pa.array([text], pa.string()) for each, text in cells.items()}
    # A row without any cell is a row all the same.
    rows = pa.table({**columns, ROW: pa.array([1])})
    return str(with_row_digest(rows, made, use_case, name).column(made)[0].as_py())


def _copies(digests: pa.ChunkedArray) -> pa.Array:
    """Return for each digest how often it has been there, with itself, as text."""
    codes = np.asarray(
        digests.combine_chunks().dictionary_encode().indices.fill_null(-1), dtype=np.int64
    )
    order = np.argsort(codes, kind="stable")  # rows stand in the order of files and places
    places = np.arange(len(codes))
    begins = np.concatenate([[True], np.diff(codes[order]) != 0]) if len(codes) else places == 0
    copies = np.empty(len(codes), dtype=np.int64)
    copies[order] = places - np.maximum.accumulate(np.where(begins, places, 0)) + 1
    return pa.array(copies).cast(pa.string())


def _outcome(use_case: UseCase, name: str) -> list[str]:
    """Return the delivered columns of a source that hold the outcome, or say when it was known.

    Both are written after the row, so neither is part of what it is.
    """
    label, source = use_case.label, use_case.sources[name]
    if label.source != name or label.column is None:
        return []
    columns = [label.column]
    if label.assumed_lag is None and label.label_time not in source.time_columns:
        columns.append(label.label_time)
    computed = [each for each in columns if each in source.computed]
    return [*columns, *parts_of(computed, source)]
