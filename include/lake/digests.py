"""Digests of content: of rows whatever their order and layout, and of several digests together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.lake.ordering import is_ordered
from include.lake.sql import PARTITION, TIMESTAMP


def digest(rows: pa.Table, *, sort_by: Sequence[str]) -> str:
    """Return the SHA-256 of a table's content: its schema and values.

    The order, chunking and file layout of the rows do not count. Rows are sorted by `sort_by`, ties
    by the other columns in order of their names. `-0.0` counts as `0.0`, every NaN as one NaN,
    timestamps as UTC microseconds; the column `partition` is left out.
    """
    names = sorted(name for name in rows.column_names if name != PARTITION)
    rows = rows.select(names)
    for index, name in enumerate(names):
        rows = rows.set_column(index, name, _canonical(rows.column(name)))
    order = [*sort_by, *(name for name in names if name not in sort_by)]
    if not is_ordered(map(rows.column, order)):
        rows = rows.take(_order(rows, order))
    state = hashlib.sha256()
    for name in names:
        column = rows.column(name).combine_chunks()
        state.update(f"{name}:{column.type}:{len(column)};".encode())
        state.update(_validity(column))
        _update(state, column)
    return f"sha256:{state.hexdigest()}"


def _order(rows: pa.Table, names: Sequence[str]) -> pa.Array:
    """Return the places of rows in order of some columns.

    The first column alone decides where no value of it comes twice, as of most keys; to sort by it
    takes a fraction of what it takes to compare whole rows.
    """
    first = rows.column(names[0])
    if pa.types.is_int64(first.type) and not first.null_count:
        values = first.to_numpy()
        places = np.argsort(values)  # unstable: which of two equal ones is first is asked below
        ordered = values[places]
        if np.all(ordered[1:] > ordered[:-1]):
            return pa.array(places)
    return pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in names])


def _canonical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in the one type in which values of its kind are digested."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        return column.cast(TIMESTAMP).cast(pa.int64())
    if pa.types.is_date(kind):
        return column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column = pc.add(column.cast(pa.float64()), pa.scalar(0.0))  # of -0.0 it makes 0.0
        has_nan = pc.any(pc.is_nan(column)).as_py()
        return pc.if_else(pc.is_nan(column), pa.scalar(float("nan")), column) if has_nan else column
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    return column


def _validity(column: pa.Array) -> bytes:
    """Return a bit a value, the first one in the highest place: whether there is one."""
    if not column.null_count:
        bits = np.full(-(-len(column) // 8), 255, dtype=np.uint8)
        if len(column) % 8:
            bits[-1] = 256 - 2 ** (8 - len(column) % 8)
        return bits.tobytes()
    valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return np.packbits(np.asarray(valid, dtype=bool)).tobytes()


def _update(state: Any, column: pa.Array) -> None:
    """Add a column's values to a hash: of texts their lengths and bytes, of others their memory.

    Null has a value here too; which values are null is hashed beside them.
    """
    if pa.types.is_string(column.type):
        filled = pc.fill_null(column, "")
        state.update(np.asarray(pc.binary_length(filled), dtype=np.int64).tobytes())
        # The lengths before the bytes: `ab`, `c` and `a`, `bc` have the same bytes.
        _, offsets, data = filled.buffers()
        if data is not None and len(filled):
            ends = np.frombuffer(offsets, dtype=np.int32)[
                filled.offset : filled.offset + len(filled) + 1
            ]
            state.update(memoryview(data)[int(ends[0]) : int(ends[-1])])
        return
    zero = False if pa.types.is_boolean(column.type) else pa.scalar(0, column.type)
    filled = pc.fill_null(column, zero) if column.null_count else column
    state.update(np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).data)


def combine(parts: Sequence[str]) -> str:
    """Return one digest over several, in their order."""
    return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()
