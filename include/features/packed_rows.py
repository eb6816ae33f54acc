"""Pack the rows of a frame as the online store keeps them, a column at a time.

What comes is what `online_rows.pack` gives of each row, byte by byte: entity, event time, and the
values as a MessagePack array. A million rows would each cost a dozen steps of Python otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.features.online_rows import OnlineRow, RowsDigest

ROWS_AT_ONCE = 50_000
_NIL, _FALSE, _TRUE, _FLOAT = 0xC0, 0xC2, 0xC3, 0xCB
# MessagePack's forms of a whole number that is not in its first byte alone: the greatest number of
# each form with that byte and the bytes that follow it.
_UNSIGNED = ((2**8, 0xCC, 1), (2**16, 0xCD, 2), (2**32, 0xCE, 4), (2**63, 0xCF, 8))
_SIGNED = ((-(2**7), 0xD0, 1), (-(2**15), 0xD1, 2), (-(2**31), 0xD2, 4), (-(2**63), 0xD3, 8))

Bytes = NDArray[np.uint8]


def packed_batches(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield rows as (entity, event_ts, values), some at a time.

    `rows` have the entity as text, the event time in microseconds, then the values in their order.
    """
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        entity, event_ts, *values = batch.columns
        cells = [_array_header(len(values), len(batch)), *map(_cells, values)]
        packed = pc.binary_join_element_wise(*cells, pa.scalar(b"", pa.binary()))
        yield pa.table({"entity": entity, "event_ts": event_ts, "values": packed})


class PackedRows:
    """Packed rows, each given once; `digest` is that of those given so far."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows, self._digest = rows, RowsDigest()

    def __iter__(self) -> Iterator[OnlineRow]:
        for batch in packed_batches(self._rows):
            _add(self._digest, batch)
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def digest(self) -> str:
        """Return the digest of the rows that were given."""
        return self._digest.hex()


def _add(digest: RowsDigest, batch: pa.Table) -> None:
    """Add packed rows to a digest."""
    entity, event_ts, values = batch.columns
    lengths = (pc.utf8_length(entity), event_ts, pc.binary_length(values))
    texts = [pc.cast(pc.cast(each, pa.string()), pa.binary()) for each in lengths]
    parts = [texts[0], pc.cast(entity, pa.binary()), texts[1], texts[2], values]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(b":", pa.binary()))
    for chunk in joined.chunks:
        digest.update(_content(chunk))


def _content(column: pa.Array) -> memoryview:
    """Return the bytes of all values of a column without a null, one behind the other."""
    _, offsets, data = column.buffers()
    if not len(column) or data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


def _array_header(size: int, rows: int) -> pa.Array:
    """Return the beginning of an array of so many values, for each of some rows."""
    # Of more than 65,535 values no row could be: SQLite and Delta have fewer columns.
    header = bytes([0x90 | size]) if size < 16 else b"\xdc" + size.to_bytes(2, "big")
    return pa.repeat(pa.scalar(header, pa.binary()), rows)


def _cells(column: pa.Array) -> pa.Array:
    """Return the values of a column as MessagePack has them.

    Raises:
        TypeError: a feature is of a type that no view may declare.
    """
    kind = column.type
    if pa.types.is_boolean(kind):
        values = pc.fill_null(pc.if_else(column, pa.scalar(_TRUE), pa.scalar(_FALSE)), _NIL)
        return _binary(np.asarray(values, dtype=np.uint8)[:, None], np.ones(len(column), np.int64))
    if pa.types.is_integer(kind):
        return _with_nulls(column, _whole(_filled(column, np.int64)))
    if pa.types.is_floating(kind):
        cells = np.empty((len(column), 9), dtype=np.uint8)
        cells[:, 0] = _FLOAT
        cells[:, 1:] = _big_endian(_filled(column, np.float64), 8)
        return _with_nulls(column, _binary(cells, np.full(len(column), 9, np.int64)))
    if pa.types.is_string(kind):
        filled = pc.fill_null(column, "")
        sizes = np.asarray(pc.binary_length(filled), dtype=np.int64)
        headers, body = _text_headers(sizes), pc.cast(filled, pa.binary())
        whole = pc.binary_join_element_wise(headers, body, pa.scalar(b"", pa.binary()))
        return _with_nulls(column, whole)
    raise TypeError(f"a feature of type {kind} cannot be packed; report this")


def _filled(column: pa.Array, kind: Any) -> NDArray[Any]:
    zero = pa.scalar(0, column.type)
    return np.asarray(pc.fill_null(column, zero).to_numpy(zero_copy_only=False), dtype=kind)


def _with_nulls(column: pa.Array, cells: pa.Array) -> pa.Array:
    """Return cells with nil where the column has no value."""
    if not column.null_count:
        return cells
    return pc.if_else(pc.is_valid(column), cells, pa.scalar(bytes([_NIL]), pa.binary()))


def _whole(values: NDArray[np.int64]) -> pa.Array:
    """Return whole numbers, each in the shortest form that holds it."""
    cells = np.zeros((len(values), 9), dtype=np.uint8)
    sizes = np.ones(len(values), dtype=np.int64)
    cells[:, 0] = values.astype(np.uint8)  # of -32 to 127 the form is the byte itself
    left = (values > 127) | (values < -32)
    for bound, head, width in _UNSIGNED:
        chosen = left & (values > 127) & (values <= bound - 1)
        _fill(cells, sizes, chosen, head, values, width)
        left &= ~chosen
    for bound, head, width in _SIGNED:
        chosen = left & (values >= bound)
        _fill(cells, sizes, chosen, head, values, width)
        left &= ~chosen
    return _binary(cells, sizes)


def _text_headers(sizes: NDArray[np.int64]) -> pa.Array:
    """Return what stands before texts of so many bytes."""
    cells = np.zeros((len(sizes), 5), dtype=np.uint8)
    lengths = np.ones(len(sizes), dtype=np.int64)
    cells[:, 0] = 0xA0 | np.minimum(sizes, 31)
    left = sizes > 31
    for bound, head, width in ((2**8, 0xD9, 1), (2**16, 0xDA, 2), (2**32, 0xDB, 4)):
        chosen = left & (sizes < bound)
        _fill(cells, lengths, chosen, head, sizes, width)
        left &= ~chosen
    return _binary(cells, lengths)


def _fill(
    cells: Bytes,
    sizes: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    head: int,
    values: NDArray[np.int64],
    width: int,
) -> None:
    """Write a first byte and so many bytes of a number into the chosen cells."""
    if chosen.any():
        cells[chosen, 0] = head
        cells[chosen, 1 : 1 + width] = _big_endian(values[chosen], 8)[:, 8 - width :]
        sizes[chosen] = 1 + width


def _big_endian(values: NDArray[Any], width: int) -> Bytes:
    """Return the bytes of numbers, the highest first."""
    swapped = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">")))
    return swapped.view(np.uint8).reshape(len(values), width)


def _binary(cells: Bytes, sizes: NDArray[np.int64]) -> pa.Array:
    """Return the first bytes of each cell, so many as its size, as a column."""
    offsets = np.zeros(len(sizes) + 1, dtype=np.int32)
    np.cumsum(sizes, out=offsets[1:])
    widest = int(sizes.max(initial=1))
    data = cells[:, :widest]
    if widest * len(sizes) != int(offsets[-1]):
        data = data[np.arange(widest) < sizes[:, None]]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.binary(), len(sizes), buffers)
