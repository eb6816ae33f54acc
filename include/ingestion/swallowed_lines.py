"""Lines of a CSV's table that were read as a part of one value, as a quote is a letter there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from include.ingestion.decompression import CHUNK, Refused
from include.ingestion.dialects import ROWS, Dialect, is_number
from include.ingestion.text_columns import BATCH


def refuse_swallowed(
    path: Path, out: Path, columns: Sequence[str], separator: str, dialect: Dialect
) -> None:
    """Refuse a file with lines of the table inside of a value, or of a name in its header.

    A quote that begins a value as a letter opens one, which the next quote before a separator or
    a line's end closes: what stands between them would be lost as rows. `out` holds what was read.

    Raises:
        Refused: a value or a name holds lines of the table.
    """
    with pa.memory_map(str(out)) as file:
        rows = pa.ipc.open_file(file).read_all()
        end = _line_end(path, len(rows) + dialect.header)
        if end is None:
            return
        numbers = _columns_of_numbers(rows, len(columns))
        held = itertools.chain(
            ((0, place, name) for place, name in enumerate(columns) if end in name),
            _texts_over_lines(rows, len(columns), separator, end),
        )
        found = next(
            (
                (row, place, lines)
                for row, place, text in held
                if (lines := _lines_within(text, place, len(columns), separator, end, numbers))
            ),
            None,
        )
    if found is None:
        return
    row, place, lines = found
    name = columns[place].split(end)[0][:60]
    where = f"column {name!r} of row {row}" if row else f"the name {name!r} in its header"
    raise Refused(
        f"has {lines} more lines of the table in {where}: a quote ({dialect.quote}) opens it and "
        "is closed lines later. Write quotes that are letters twice, and between quotes; or quote: "
        "none under the source, where no value stands between quotes"
    )


def _texts_over_lines(
    rows: pa.Table, width: int, separator: str, end: str
) -> Iterator[tuple[int, int, str]]:
    """Yield row, column and text where a value of several lines may hold lines of the table.

    One line of it, in two halves, has as many separators as any.
    """
    for place in range(width):
        for batch in rows.select([f"c{place}", "row"]).to_batches(BATCH):
            texts, numbers = batch.columns
            parted = pc.greater_equal(pc.count_substring(texts, separator), width - 1)
            kept = pc.and_(pc.match_substring(texts, end), parted)
            chosen = texts.filter(kept).to_pylist(), numbers.filter(kept).to_pylist()
            yield from ((row, place, text) for text, row in zip(*chosen, strict=True))


def _line_end(path: Path, expected: int) -> str | None:
    """Return what ends the lines of a file, None where it has no more of them than expected."""
    lines = old = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            lines, old = lines + block.count(b"\n"), old + block.count(b"\r")
    if max(lines, old) <= expected:
        return None
    return "\n" if lines else "\r"


def _columns_of_numbers(rows: pa.Table, width: int) -> set[int]:
    """Return the places of columns whose values are numbers or dates, by the first rows."""
    found = set()
    for place in range(width):
        filled = [text for text in rows.column(place).slice(0, ROWS).to_pylist() if text]
        if filled and sum(map(is_number, filled)) >= 0.8 * len(filled):
            found.add(place)
    return found


def _lines_within(
    text: str, place: int, width: int, separator: str, end: str, numbers: set[int]
) -> int:
    """Return how many lines of the table a value holds; 0 where it is a text of several lines.

    Its first line is then the rest of the row that it stands in, its last one the beginning of
    another, up to the same column. Numbers stand where the table has numbers, two at least.
    """
    lines = [line.rstrip("\r") for line in text.split(end)]
    kept = [lines[0], *(line for line in lines[1:-1] if line), lines[-1]]
    cut = [line.split(separator) for line in kept]
    widths = [len(values) for values in cut]
    if widths != [width - place, *[width] * (len(cut) - 2), place + 1]:
        return 0
    filled = [
        value
        for values in cut[1:]
        for at, value in enumerate(values)
        if at in numbers and value.strip()
    ]
    return len(cut) - 1 if len(filled) > 1 and all(map(is_number, filled)) else 0
