"""CSV files as text columns, with the lines that could not be split.

Part of the child process that opens foreign files (`file_worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from include.ingestion.decompression import Refused, first_line
from include.ingestion.dialects import (
    BACKSLASHED,
    MAX_TITLE,
    NO_QUOTE,
    SEPARATORS,
    Dialect,
    cells,
    names_of,
)
from include.ingestion.swallowed_lines import refuse_swallowed
from include.ingestion.text_columns import (
    KEPT_LINE,
    MAX_CELL,
    MAX_HEADER,
    MAX_LINE,
    check_columns,
    open_database,
    write_columns,
)

BLOCK = 16 << 20  # bytes


class _Reject(NamedTuple):
    """A line that DuckDB could not split: its number, counted from 1, and what was wrong."""

    line: int
    problem: str
    text: str | None
    message: str


def convert_csv(
    path: Path, out: Path, declared: Sequence[str], temporary: str, dialect: Dialect
) -> tuple[list[str], int]:
    """Turn a CSV in UTF-8 into text columns; return their names and the number of rows.

    Without a line that is not empty there are neither. A line that could not be split stands among
    the rows as `malformed`. One that repeats the header, as where exports were put together, is no
    row; the others keep their numbers.

    Raises:
        Refused: a line is too long, a quote is never closed, or no line could be split at all.
    """
    columns, separator = _header(path, declared, dialect)
    if not columns:
        if dialect.skip:
            raise Refused(f"has no line behind the {dialect.skip} that are left out; mend skip")
        return [], 0
    names = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(columns)))
    # DuckDB takes a mark that is written into the query; in a text ' is doubled.
    quote = "" if dialect.quote == NO_QUOTE else dialect.quote.replace("'", "''")
    escape = "\\" if quote and dialect.escape == "backslash" else quote
    named = {
        f"h{index}": name
        for index, name in enumerate(columns)
        if dialect.header and name != f"Unnamed: {index}"
    }
    again = _again(columns) if named else "false"
    given = {"path": str(path), "separator": separator, **named}
    reader = (
        f"read_csv($path, columns = {{{names}}}, "
        f"header = {dialect.header}, auto_detect = false, delim = $separator, quote = '{quote}', "
        f"escape = '{escape}', strict_mode = true, store_rejects = true, rejects_limit = 0, "
        # Nor is what the folder is called, such as `month=1`, a column.
        f"max_line_size = {MAX_LINE}, hive_partitioning = false)"
    )
    query = (
        f"SELECT * FROM (SELECT *, row_number() OVER () AS row FROM {reader}) WHERE NOT ({again})"
    )
    with open_database(temporary) as con:
        try:
            rows = write_columns(con, query, out, given, len(columns))
        except duckdb.InvalidInputException as error:
            raise Refused(
                f"is no CSV whose lines are separated by {separator!r} and quoted by "
                f"{dialect.quote}: after a quote stands what cannot stand there. Mend it, or write "
                f"separator, quote and escape under the source ({first_line(error)})"
            ) from None
        rejects = [
            _Reject(*reject)
            for reject in con.execute(
                "SELECT line, any_value(error_type)::VARCHAR, any_value(csv_line), "
                "any_value(error_message) FROM reject_errors GROUP BY line ORDER BY line"
            ).fetchall()
        ]
    if rejects:
        _refuse_broken(rejects, rows, columns, dialect)
    if quote:
        refuse_swallowed(path, out, columns, separator, dialect)
    if not rejects:
        return columns, rows
    # DuckDB counts empty lines and makes no rows of them.
    empty = _empty_lines(path, dialect)
    numbers = [
        reject.line - dialect.header - int(np.searchsorted(empty, reject.line))
        for reject in rejects
    ]
    texts = [(reject.text or "").lstrip("\r\n")[:KEPT_LINE] for reject in rejects]
    _insert_malformed(out, list(zip(numbers, texts, strict=True)), len(columns))
    return columns, rows + len(rejects)


def _again(columns: Sequence[str]) -> str:
    """Return the condition of a line that repeats the header; names are parameters h0, h1, ...

    Of files that were put together it may begin with the mark of byte order of the later one.
    """
    told = [
        # A column without a name has a name that we gave.
        f"coalesce(trim(c{index}), '') = " + ("''" if name == f"Unnamed: {index}" else f"$h{index}")
        for index, name in enumerate(columns)
    ]
    if columns[0] != "Unnamed: 0":
        told[0] = f"({told[0]} OR coalesce(c0 = '\ufeff' || $h0, false))"
    return " AND ".join(told)


def _refuse_broken(
    rejects: Sequence[_Reject], rows: int, columns: Sequence[str], dialect: Dialect
) -> None:
    """Refuse a file whose damage is more than lines that can be set aside."""
    is_backslashed = dialect.escape == "double" and any(
        BACKSLASHED.search(reject.text or "") for reject in rejects
    )
    hint = (
        'its quotes are escaped by a backslash (\\"): write escape: backslash under the source'
        if is_backslashed
        else "mend the quoting"
    )
    for reject in rejects:
        line = reject.line + dialect.skip
        if "LINE SIZE" in reject.problem or "MAXIMUM" in reject.problem:
            raise Refused(
                f"line {line} is longer than {MAX_LINE >> 20} MB; a cell holds at most "
                f"{MAX_CELL >> 20} MB"
            )
        if "UNQUOTED" in reject.problem and "unterminated" in reject.message.lower():
            raise Refused(f"line {line} opens a quote that is never closed; {hint}")
    if not rows:
        raise Refused(
            f"holds no line that could be read as its {len(columns)} columns {columns[:5]}; the "
            f"first, line {rejects[0].line + dialect.skip}, is "
            f"{(rejects[0].text or '')[:200]!r}. Write separator, header, skip or escape under "
            "the source, or export it again"
        )


def _header(path: Path, declared: Sequence[str], dialect: Dialect) -> tuple[list[str], str]:
    """Return the columns' names and the separator.

    A separator that is not given is the one by which most of the declared names are found.
    """
    with path.open("rb") as file:
        start = file.read(MAX_HEADER + 1)
    if b"\n" not in start and len(start) > MAX_HEADER:
        raise Refused(
            f"has a first line of more than {MAX_HEADER // 1024} KB; a header is a line of column "
            "names"
        )
    text = start.decode("utf-8", "ignore")
    best: tuple[tuple[int, int], list[str], str] = ((-1, -1), [], ",")
    for separator in SEPARATORS if dialect.separator is None else (dialect.separator,):
        first = next(iter(cells(text, separator, escape=dialect.escape, quote=dialect.quote)), [])
        names = (
            names_of(first)
            if dialect.header
            else [f"c{index}" for index in range(1, len(first) + 1)]
        )
        score = (len(set(names) & set(declared)), len(names))
        if score > best[0]:
            best = (score, names, separator)
    unescaped = text.replace("\\" + dialect.quote, "") if dialect.escape == "backslash" else text
    if (
        "\n" in "".join(best[1][-1:])
        and len(start) <= MAX_HEADER
        and unescaped.count(dialect.quote) % 2
    ):
        rows = cells(text, best[2], escape=dialect.escape, quote=dialect.quote, limit=2)
        if len(rows) == 1:
            raise Refused(
                f"opens a quote in its header, before {best[1][-1].splitlines()[0][:60]!r}, that "
                "is never closed; mend the quoting"
            )
    # Less than half of the declared names: it may be no header at all.
    if dialect.header and best[0][0] < (len(declared) + 1) // 2:
        _refuse_header_below(text, declared, dialect, best[0][0])
    check_columns(best[1])
    return best[1], best[2]


def _refuse_header_below(
    text: str, declared: Sequence[str], dialect: Dialect, matched: int
) -> None:
    """Refuse a file whose declared names stand in a later line than the header's."""
    for number, line in enumerate(text.splitlines()[1 : MAX_TITLE + 1], dialect.skip + 2):
        for separator in SEPARATORS if dialect.separator is None else (dialect.separator,):
            names = {
                name
                for row in cells(line, separator, escape=dialect.escape, quote=dialect.quote)
                for name in names_of(row)
            }
            if len(names & set(declared)) > max(matched, len(declared) // 2):
                raise Refused(
                    f"has its header in line {number}, it seems: write skip: {number - 1} under "
                    "the source"
                )


def _insert_malformed(out: Path, rejects: Sequence[tuple[int, str]], width: int) -> None:
    """Put lines that could not be split, each with its row number, among the rows."""
    with pa.OSFile(str(out), "rb") as file:
        whole = pa.ipc.open_file(file).read_all()
    read = whole.column("row").to_numpy()  # numbers of lines that could be split
    total = int(read.max(initial=0)) + len(rejects)
    numbers = np.array([number for number, _ in rejects], dtype=np.int64)
    if numbers.min() < 1 or numbers.max() > total or len(np.unique(numbers)) < len(numbers):
        # A broken line with a single quote hides empty lines from `_empty_lines`: as near as can be
        # told, none twice.
        steps = np.arange(len(numbers))
        numbers = np.maximum.accumulate(np.clip(numbers, 1, total) - steps) + steps
        numbers = np.minimum(numbers, total - steps[::-1])
    whole = whole.set_column(
        whole.column_names.index("row"),
        "row",
        pa.array(np.setdiff1d(np.arange(1, total + 1), numbers)[read - 1]),
    )
    whole = whole.append_column("malformed", pa.nulls(len(whole), pa.string()))
    none = {f"c{index}": pa.nulls(len(rejects), pa.string()) for index in range(width)}
    added = pa.table(
        {
            **none,
            "row": pa.array(numbers),
            "malformed": pa.array([text for _, text in rejects], pa.string()),
        }
    )
    ordered = pa.concat_tables([whole, added.cast(whole.schema)]).sort_by("row")
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, whole.schema) as writer:
        writer.write_table(ordered)


def _empty_lines(path: Path, dialect: Dialect) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the numbers, from 1, of the lines with nothing on them.

    A line break in quotes ends no line. All is counted on whole blocks: a line at a time would take
    minutes for a file of some gigabytes.
    """
    numbers: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    lines, quoted, ended = 0, 0, True
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            # \r\n is one line break, also across blocks.
            block += file.read(1) if block.endswith(b"\r") else b""
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            codes = np.frombuffer(
                block.replace(b"\\" + dialect.quote.encode(), b"__")
                if dialect.escape == "backslash"
                else block,
                np.uint8,
            )
            # A doubled quote toggles twice, so that it leaves the state as it was.
            marks = codes == (ord(dialect.quote) if dialect.quote != NO_QUOTE else 256)
            inside = (quoted + np.cumsum(marks)) % 2
            ends = (codes == ord("\n")) & (inside == 0)
            numbers.append(lines + np.cumsum(ends)[ends & np.concatenate([[ended], ends[:-1]])])
            lines, quoted, ended = lines + int(ends.sum()), int(inside[-1]), bool(ends[-1])
    return np.concatenate([np.zeros(0, np.int64), *numbers])
