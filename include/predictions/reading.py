"""Read closed segments: a stream of rows, in bounded memory, whatever some lines look like."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from include.errors import SourceError
from include.object_stores import explain
from include.predictions.line import LoggedLine, UnreadableLine, read_line
from include.predictions.log import ROTATE_BYTES, Segment

MAX_SEGMENT = 4 * ROTATE_BYTES
CHUNK = 10_000  # lines that are in memory as Python objects at once
_TIME = pa.timestamp("us", tz="UTC")
_TYPES = {
    "line": pa.int64(),
    "at": _TIME,
    "generation": pa.int64(),
    "step": pa.int64(),
    "version": pa.int64(),
    "score": pa.float64(),
    "threshold": pa.float64(),
    "features_at": _TIME,
    "latency_us": pa.int64(),
    "model_us": pa.int64(),
    "batch": pa.bool_(),
}
SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in LoggedLine._fields])
"""The columns of a logged line: those of `LoggedLine`, the times in UTC."""


class BadLine(NamedTuple):
    """A line that cannot be read: its place in the segment (from 0), its bytes, and why."""

    line: int
    offset: int
    content: bytes
    reason: str


def stream(
    segments: Sequence[Segment],
    ended: Callable[[Segment, list[BadLine]], None],
    unopened: Callable[[Segment, OSError], None],
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of segments, of SCHEMA, in their order.

    A segment is read as a whole before its first row is given: one that cannot be read (`unopened`)
    gives none. `ended` is told of each that was read, with the lines that could not be.
    """
    rows: list[LoggedLine] = []
    for segment in segments:
        try:
            if segment.size() > MAX_SEGMENT:
                raise OSError(errno.EFBIG, "it is larger than any that a node writes")
            content = segment.read()
        except OSError as error:
            unopened(segment, error)
            continue
        bad: list[BadLine] = []
        offset = 0
        for number, line in enumerate(io.BytesIO(content)):
            try:
                rows.append(read_line(segment.name, number, line))
            except UnreadableLine as error:
                bad.append(BadLine(number, offset, line, str(error)))
            offset += len(line)
            if len(rows) >= CHUNK:
                yield _batch(rows)
                rows.clear()
        ended(segment, bad)
    if rows:
        yield _batch(rows)


def read(segments: Sequence[Segment]) -> pa.Table:
    """Return the rows of segments as one table.

    Raises:
        SourceError: a segment or a line cannot be read.
    """

    def refuse(segment: Segment, bad: list[BadLine]) -> None:
        if bad:
            raise SourceError(f"{segment.path}, line {bad[0].line + 1}: {bad[0].reason}")

    def fail(segment: Segment, error: OSError) -> None:
        raise SourceError(f"{segment.path} cannot be read: {explain(error)}") from None

    return pa.Table.from_batches(list(stream(segments, refuse, fail)), schema=SCHEMA)


def _batch(rows: Sequence[LoggedLine]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
