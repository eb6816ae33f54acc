"""JSON files as text columns; part of the child process that opens foreign files."""

from __future__ import annotations

from pathlib import Path

import duckdb

from include.ingestion.decompression import Refused
from include.ingestion.text_columns import (
    KEPT_LINE,
    MAX_HEADER,
    MAX_LINE,
    check_columns,
    open_database,
    write_columns,
)
from include.lake.sql import text_literal

MAX_ARRAY = 256 << 20  # bytes


def convert_json_lines(path: Path, out: Path, temporary: str) -> tuple[list[str], int]:
    """Turn JSON, one object a line or one array of objects, into text columns.

    Returns their names, in the order in which they first appear, and the number of rows.

    Raises:
        Refused: no line is an object, or the file is one array that is too large or damaged.
    """
    with path.open("rb") as file:
        array = file.read(MAX_HEADER).lstrip()[:1] == b"["
    # A separator that JSON text cannot hold, and no quotes: each line is one cell as it stands.
    lines = (
        "SELECT line, row_number() OVER () AS row FROM read_csv($path, columns = {'line': "
        "'VARCHAR'}, header = false, auto_detect = false, delim = '\x01', quote = '', escape = "
        f"'', strict_mode = false, max_line_size = {MAX_LINE}) WHERE trim(line) <> ''"
    )
    with open_database(temporary) as con:
        if array:
            lines = _array(con, path)
        # A name that stands twice in an object has two values, of which none is known to be the
        # right one.
        whole = (
            "json_type(line) = 'OBJECT' AND len(json_keys(line)) = "
            "len(list_distinct(json_keys(line)))"
        )
        con.execute(
            "CREATE TEMP TABLE lines AS SELECT row, line, CASE WHEN json_valid(line) THEN "
            f"coalesce({whole}, false) ELSE false END AS whole FROM ({lines})",
            {"path": str(path)},
        )
        names = con.execute(
            "SELECT name FROM (SELECT unnest(CASE WHEN whole THEN json_keys(line) ELSE [] END) AS "
            "name, row FROM lines) GROUP BY name ORDER BY min(row), name"
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


def _array(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Return the query of (line, row) of a file that is one JSON array of objects.

    It is parsed by DuckDB and not by Python, so that whole numbers keep all their digits.
    """
    if path.stat().st_size > MAX_ARRAY:
        raise Refused(
            f"is one JSON array of more than {MAX_ARRAY >> 20} MB; write one object a line"
        )
    whole = path.read_text(encoding="utf-8")
    con.execute("CREATE TEMP TABLE one AS SELECT $whole AS whole", {"whole": whole})
    if not con.execute("SELECT json_valid(whole) FROM one").fetchall()[0][0]:
        raise Refused("begins as one JSON array and is none to its end; write one object a line")
    return (
        "SELECT CAST(element AS VARCHAR) AS line, row_number() OVER () AS row "
        "FROM (SELECT unnest(json_extract(whole, '$[*]')) AS element FROM one WHERE $path <> '')"
    )


def _pointer(name: str) -> str:
    """Return a name as a JSON pointer (RFC 6901) in a SQL literal."""
    return text_literal("/" + name.replace("~", "~0").replace("/", "~1"))
