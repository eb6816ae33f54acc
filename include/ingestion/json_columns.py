"""JSON files as text columns; part of the child process that opens foreign files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from include.ingestion.decompression import Refused, first_line
from include.ingestion.text_columns import (
    KEPT_LINE,
    MAX_CELL,
    MAX_HEADER,
    MAX_LINE,
    check_columns,
    open_database,
    write_columns,
)
from include.lake.sql import text_literal

MAX_ARRAY = 1 << 30  # bytes
MAX_START = 256  # bytes of a value that are looked at
_NO_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def convert_json_lines(
    path: Path,
    out: Path,
    temporary: str,
    *,
    whole: bool = False,
    declared: Sequence[str] = (),
) -> tuple[list[str], int]:
    """Turn JSON, one object a line or one array of objects, into text columns.

    With `whole` the text may also be one object that holds the array, as services answer; it is a
    row itself where it has most of the names that are `declared`. Returns
    the columns' names, in the order in which they first appear, and the number of rows.

    Raises:
        Refused: no line is an object, or the file is one array that is too large or damaged.
    """
    unfolded = Path(temporary) / "unfolded"
    try:
        lines = unfolded if _unfold(path, unfolded, declared, whole=whole) else path
        return _convert_lines(lines, out, temporary)
    finally:
        unfolded.unlink(missing_ok=True)


def _unfold(path: Path, unfolded: Path, declared: Sequence[str], *, whole: bool) -> bool:
    """Write the objects of an array one a line; tell whether the text is an array, or holds one.

    msgspec gives each element as the bytes that it is, so that numbers keep all their digits.
    """
    with path.open("rb") as file:
        start = file.read(MAX_HEADER).lstrip()
    if start[:1] == b"[":
        elements = _decoded(path, list[msgspec.Raw], "array")
    elif whole and start[:1] == b"{" and not _begins_with_a_line(path):
        elements = _array_within(_decoded(path, dict[str, msgspec.Raw], "object"), declared)
        elements = [path.read_bytes()] if elements is None else elements
    else:
        return False
    with unfolded.open("wb") as out:
        for element in elements:
            # Line breaks are blanks here: within a text JSON writes them as \\n.
            out.write(bytes(element).translate(_NO_BREAKS) + b"\n")
    return True


def _begins_with_a_line(path: Path) -> bool:
    """Tell whether the first line is a whole object and more follows: these are JSON lines."""
    with path.open("rb") as file:
        first = file.readline(MAX_LINE + 1)
        while first and not first.strip():
            first = file.readline(MAX_LINE + 1)
        more = any(line.strip() for line in iter(lambda: file.readline(MAX_LINE + 1), b""))
    try:
        msgspec.json.decode(first, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return False
    return more


def _array_within(
    values: dict[str, msgspec.Raw], declared: Sequence[str]
) -> list[msgspec.Raw] | None:
    """Return the one array of objects in an object; None where it is a row itself."""
    if 2 * sum(name in values for name in declared) > len(declared):
        return None
    starts = {name: bytes(memoryview(value)[:MAX_START]).lstrip() for name, value in values.items()}
    arrays = [
        name for name, start in starts.items() if re.match(rb"\[\s*(\{|\])", start) is not None
    ]
    filled = [name for name in arrays if re.match(rb"\[\s*\{", starts[name])] or arrays
    if len(filled) == 1:
        elements: list[msgspec.Raw] = msgspec.json.decode(values[filled[0]], type=list[msgspec.Raw])
        return elements
    if filled:
        raise Refused(
            f"is one JSON object with {len(filled)} arrays of objects ({', '.join(filled[:8])}); "
            "write the one that is the table into a file of its own"
        )
    if any(start[:1] in (b"[", b"{") for start in starts.values()):
        raise Refused(
            f"is one JSON object ({', '.join(list(values)[:8])}) without an array of objects; "
            "write an array of objects, one a row, or set format: jsonl where it is a row itself"
        )
    return None


def _decoded(path: Path, kind: Any, name: str) -> Any:
    """Return a text that is one value of JSON, its parts undecoded."""
    if path.stat().st_size > MAX_ARRAY:
        raise Refused(
            f"is one JSON {name} of more than {MAX_ARRAY >> 20} MB; write one object a line"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(
            f"begins as one JSON {name} and is none to its end ({first_line(error)}; NaN and "
            "Infinity are no JSON); mend it, or write one object a line"
        ) from None


def _convert_lines(path: Path, out: Path, temporary: str) -> tuple[list[str], int]:
    # A separator that JSON text cannot hold, and no quotes: each line is one cell as it stands.
    lines = (
        "SELECT line, row_number() OVER () AS row FROM read_csv($path, columns = {'line': "
        "'VARCHAR'}, header = false, auto_detect = false, delim = '\x01', quote = '', escape = "
        f"'', strict_mode = false, max_line_size = {MAX_LINE}, hive_partitioning = false) "
        "WHERE trim(line) <> ''"
    )
    with open_database(temporary) as con:
        # A name that stands twice in an object has two values, of which none is known to be the
        # right one.
        whole = (
            "json_type(line) = 'OBJECT' AND len(json_keys(line)) = "
            "len(list_distinct(json_keys(line)))"
        )
        try:
            con.execute(
                "CREATE TEMP TABLE lines AS SELECT row, line, CASE WHEN json_valid(line) THEN "
                f"coalesce({whole}, false) ELSE false END AS whole FROM ({lines})",
                {"path": str(path)},
            )
        except duckdb.InvalidInputException:
            _refuse_long_line(path)
            raise
        names = con.execute(
            "SELECT name FROM (SELECT unnest(keys) AS name, generate_subscripts(keys, 1) AS place, "
            "row FROM (SELECT row, CASE WHEN whole THEN json_keys(line) ELSE [] END AS keys FROM "
            "lines)) GROUP BY name ORDER BY min(row), arg_min(place, row)"
        ).fetchall()
        columns = [name for (name,) in names]
        check_columns(columns)
        if not columns and (
            first := con.execute("SELECT line FROM lines ORDER BY row LIMIT 1").fetchone()
        ):
            raise Refused(
                "holds no line that is a JSON object with names; the first is "
                f"{first[0][:200]!r}: write one object a line"
            )
        picked = "".join(
            f"CASE WHEN whole THEN line->>{_pointer(name)} END AS c{index}, "
            for index, name in enumerate(columns)
        )
        query = (
            f"SELECT {picked} row, CASE WHEN NOT whole THEN line[:{KEPT_LINE}] END AS "
            "malformed FROM lines ORDER BY row"
        )
        return columns, write_columns(con, query, out, {}, len(columns))


def _refuse_long_line(path: Path) -> None:
    """Refuse a file that has a line of more bytes than are read, by its number."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 2), b""), 1):
            if len(line.rstrip(b"\r\n")) >= MAX_LINE:
                raise Refused(
                    f"line {number} is longer than {MAX_LINE >> 20} MB; write one object a line, "
                    f"with values of at most {MAX_CELL >> 20} MB"
                )


def _pointer(name: str) -> str:
    """Return a name as a JSON pointer (RFC 6901) in a SQL literal."""
    return text_literal("/" + name.replace("~", "~0").replace("/", "~1"))
