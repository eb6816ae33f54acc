"""The reader of foreign files: a child process with limits that turns one file after another into
plain text columns.

DuckDB and Arrow treat data files as trusted, so a file from outside is opened here and nowhere
else. A request is one line of JSON on stdin, its answer one line on stdout; the rows go to an Arrow
file with the columns c0, c1, ... (text), `row` (the number of the data row in the file) and, where
a line could not be split into columns, `malformed` (that line). Run by
include/ingestion/file_reader.py as `python -m include.ingestion.file_worker`.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.ingestion.decompression import MAX_BYTES, NotUtf8, Refused, Text, first_line, plain
from include.ingestion.dialects import (
    BACKSLASHED,
    MAX_TITLE,
    SEPARATORS,
    Dialect,
    cells,
    guessed,
    names_of,
    tidied,
)

MEMORY = 6 << 30
CPU_SECONDS = 900
MAX_COLUMNS = 2_000
MAX_LINE = 4 << 20
MAX_CELL = 1 << 20
MAX_HEADER = 256 * 1024
MAX_ROWS = 500_000_000
MAX_ARRAY = 256 << 20
KEPT_LINE = 2_000
BLOCK = 16 << 20


def main() -> int:
    """Answer requests until stdin ends."""
    for kind, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, MAX_BYTES + (1 << 30)),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(
            kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard)
        )
    for line in sys.stdin:
        try:
            answer = convert(**json.loads(line))
        except Refused as refusal:
            answer = {"error": str(refusal)}
        except (duckdb.Error, pa.ArrowException, OSError, ValueError) as error:
            answer = {
                "error": "cannot be read: its bytes are no table of its format; export it again "
                f"({first_line(error)})"
            }
        except MemoryError:
            answer = {
                "error": f"needs more than {MEMORY >> 30} GB of memory to read; split it into "
                "smaller files"
            }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def convert(
    *,
    path: str,
    kind: str,
    declared: Sequence[str],
    out: str,
    temporary: str,
    dialect: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn one file into an Arrow file of text columns; without a `dialect`, that of a CSV is
    guessed.

    Returns: `columns` (the header, in order), `rows`, `sha256` of the file, `dialect`, `nested`
        (columns that hold more than one value a row, with their types; they are left out).
    """
    source = Path(path)
    with source.open("rb") as file:
        head = file.read(8)
    if kind == "parquet":
        columns, rows, nested = _parquet(source, Path(out), temporary, declared)
        return {
            "columns": columns,
            "rows": rows,
            "sha256": _sha256(source),
            "dialect": None,
            "nested": nested,
        }
    unpacked = Path(temporary) / "unpacked"
    try:
        given = Dialect(**dialect) if dialect is not None else Dialect()
        text, given = _text(source, head, unpacked, given, guess=dialect is None)
        answer: dict[str, Any] = {
            "columns": [],
            "rows": 0,
            "sha256": text.sha256,
            "dialect": asdict(given),
            "nested": {},
        }
        if text.path.stat().st_size == 0:
            return answer
        if kind == "csv":
            if dialect is None:
                given = guessed(text.path, given.encoding)
            if text.mixed or given.skip or given.separator == " ":
                tidy = tidied(text.path, Path(temporary) / "tidied", given, mixed=text.mixed)
                text = replace(text, path=tidy)
            columns, rows = _csv(text.path, Path(out), declared, temporary, given)
        else:
            columns, rows = _jsonl(text.path, Path(out), temporary)
    finally:
        for made in (unpacked, Path(temporary) / "tidied"):
            made.unlink(missing_ok=True)
    return answer | {"columns": columns, "rows": rows, "dialect": asdict(given)}


def _text(
    source: Path, head: bytes, unpacked: Path, given: Dialect, *, guess: bool
) -> tuple[Text, Dialect]:
    """Return the checked text and its dialect; where that is guessed, the encoding is what the
    bytes can be read as.
    """
    try:
        return plain(source, head, unpacked, encoding=given.encoding), given
    except NotUtf8 as refusal:
        if not guess:
            raise
        names = refusal.encodings
    for name in names[:-1]:
        try:
            return plain(source, head, unpacked, encoding=name), replace(given, encoding=name)
        except Refused:
            continue
    return plain(source, head, unpacked, encoding=names[-1]), replace(given, encoding=names[-1])


def _csv(
    path: Path, out: Path, declared: Sequence[str], temporary: str, dialect: Dialect
) -> tuple[list[str], int]:
    columns, separator = _header(path, declared, dialect)
    names = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(columns)))
    escape = "\\" if dialect.escape == "backslash" else '"'
    with _connect(temporary) as con:
        query = (
            f"SELECT *, row_number() OVER () AS row FROM read_csv($path, columns = {{{names}}}, "
            f"header = {dialect.header}, auto_detect = false, delim = $separator, quote = '\"', "
            f"escape = '{escape}', strict_mode = true, store_rejects = true, rejects_limit = 0, "
            f"max_line_size = {MAX_LINE})"
        )
        try:
            rows = _write(
                con, query, out, {"path": str(path), "separator": separator}, len(columns)
            )
        except duckdb.InvalidInputException as error:
            raise Refused(
                f'is no CSV whose lines are separated by {separator!r} and quoted by ": after a '
                "quote stands what cannot "
                "stand there. Mend it, or write separator and escape under the source "
                f"({first_line(error)})"
            ) from None
        rejects = con.execute(
            "SELECT line, any_value(error_type)::VARCHAR, any_value(csv_line), "
            "any_value(error_message) FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
    hint = "mend the quoting"
    if dialect.escape == "double" and any(
        BACKSLASHED.search(text or "") for _, _, text, _ in rejects
    ):
        hint = (
            'its quotes are escaped by a backslash (\\"): write escape: backslash under the source'
        )
    for line, problem, _, message in rejects:
        if "LINE SIZE" in problem or "MAXIMUM" in problem:
            raise Refused(
                f"line {line + dialect.skip} is longer than {MAX_LINE >> 20} MB; a cell holds at "
                f"most {MAX_CELL >> 20} MB"
            )
        if "UNQUOTED" in problem and "unterminated" in message.lower():
            raise Refused(f"line {line + dialect.skip} opens a quote that is never closed; {hint}")
    if rejects and not rows:
        line, _, text, _ = rejects[0]
        raise Refused(
            f"holds no line that could be read as its {len(columns)} columns {columns[:5]}; the "
            f"first, line {line + dialect.skip}, is {(text or '')[:200]!r}. Write separator, "
            "header, skip or escape under the source, or export it again"
        )
    if rejects:
        empty = _empty_lines(path, dialect)  # DuckDB counts them as lines and makes no rows of them
        numbers = [
            line - dialect.header - int(np.searchsorted(empty, line)) for line, *_ in rejects
        ]
        texts = [(text or "").lstrip("\r\n")[:KEPT_LINE] for _, _, text, _ in rejects]
        _append(out, list(zip(numbers, texts, strict=True)), len(columns))
    return columns, rows + len(rejects)


def _header(path: Path, declared: Sequence[str], dialect: Dialect) -> tuple[list[str], str]:
    """Return the columns' names and the separator: where it is not given, the one that finds
    most of the declared names.
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
        first = next(iter(cells(text, separator, escape=dialect.escape)), [])
        names = (
            names_of(first)
            if dialect.header
            else [f"c{index}" for index in range(1, len(first) + 1)]
        )
        score = (len(set(names) & set(declared)), len(names))
        if score > best[0]:
            best = (score, names, separator)
    if dialect.header and best[0][0] < (len(declared) + 1) // 2:
        _look_below(text, declared, dialect, best[0][0])
    _check_columns(best[1])
    return best[1], best[2]


def _look_below(text: str, declared: Sequence[str], dialect: Dialect, found: int) -> None:
    """Refuse a file whose declared names stand in a later line than the header's."""
    for number, line in enumerate(text.splitlines()[1 : MAX_TITLE + 1], dialect.skip + 2):
        for separator in SEPARATORS if dialect.separator is None else (dialect.separator,):
            names = {
                name
                for row in cells(line, separator, escape=dialect.escape)
                for name in names_of(row)
            }
            if len(names & set(declared)) > max(found, len(declared) // 2):
                raise Refused(
                    f"has its header in line {number}, it seems: write skip: {number - 1} under "
                    "the source"
                )


def _check_columns(names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise Refused(f"has {len(names)} columns; at most {MAX_COLUMNS} are read")
    lowered = [name.lower() for name in names]
    for index, name in enumerate(names):
        if lowered.index(name.lower()) != index:
            first = names[lowered.index(name.lower())]
            raise Refused(
                f"has the column {name!r} twice (columns {lowered.index(name.lower()) + 1}, "
                f"{index + 1}: {first!r}, {name!r})"
            )


def _jsonl(path: Path, out: Path, temporary: str) -> tuple[list[str], int]:
    with path.open("rb") as file:
        array = file.read(MAX_HEADER).lstrip()[:1] == b"["
    lines = (
        "SELECT line, row_number() OVER () AS row FROM read_csv($path, columns = {'line': "
        "'VARCHAR'}, header = false, auto_detect = false, delim = '\x01', quote = '', escape = "
        f"'', strict_mode = false, max_line_size = {MAX_LINE}) WHERE trim(line) <> ''"
    )
    with _connect(temporary) as con:
        if array:
            lines = _array(con, path)
        # a name that stands twice in an object has two values, of which none is known to be the
        # right one
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
        _check_columns(columns)
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
        return columns, _write(con, query, out, {}, len(columns))


def _array(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Return the query of (line, row) of a file that is one JSON array of objects, whose numbers
    keep their digits.
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
    return "'/" + name.replace("~", "~0").replace("/", "~1").replace("'", "''") + "'"


def _parquet(
    path: Path, out: Path, temporary: str, wanted: Sequence[str]
) -> tuple[list[str], int, dict[str, str]]:
    size = path.stat().st_size
    if size == 0:
        _write_empty(out)
        return [], 0, {}
    try:
        meta = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise Refused(
            f"is no whole Parquet file: it ends at byte {size} without a valid footer "
            f"({first_line(error)})"
        ) from None
    columns = list(meta.schema.to_arrow_schema().names)
    _check_columns(columns)
    declared = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
    if meta.num_rows > MAX_ROWS or declared > MAX_BYTES:
        raise Refused(
            f"declares {meta.num_rows} rows and {declared} bytes; at most {MAX_ROWS} rows and "
            f"{MAX_BYTES >> 30} GB are read"
        )
    with _connect(temporary) as con:
        # the statistics of a Parquet file leave NaN out: with them, isnan() is false of every row,
        # and a text is a constant
        con.execute("SET disabled_optimizers = 'statistics_propagation'")
        described = con.execute(
            "DESCRIBE SELECT * FROM read_parquet($path)", {"path": str(path)}
        ).fetchall()
        kinds = {name: (row[0], row[1]) for name, row in zip(columns, described, strict=True)}
        nested = {
            name: kind[:60]
            for name, (_, kind) in kinds.items()
            if re.search(r"\]$|^(STRUCT|MAP|UNION|VARIANT)", kind)
        }
        if lost := [name for name in nested if name in wanted]:
            raise Refused(
                f"column {lost[0]!r} holds {nested[lost[0]]}, more than one value a row; write "
                "flat columns, or leave it out"
            )
        flat = [name for name in columns if name not in nested]
        picked = "".join(
            f"{_parquet_text(*kinds[name])} AS c{index}, " for index, name in enumerate(flat)
        )
        query = f"SELECT {picked}row_number() OVER () AS row FROM read_parquet($path)"
        return flat, _write(con, query, out, {"path": str(path)}, len(flat)), nested


def _parquet_text(name: str, kind: str) -> str:
    """Return the expression of a Parquet value as text: bytes that are UTF-8 are text, and NaN
    is no value.
    """
    column = f'"{_quoted(name)}"'
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN NOT isnan({column}) THEN CAST({column} AS VARCHAR) END"
    if kind == "BLOB":
        return f"coalesce(TRY(decode({column})), CAST({column} AS VARCHAR))"
    return f"CAST({column} AS VARCHAR)"


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def _connect(temporary: str) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(
        ":memory:",
        config={"threads": 2, "memory_limit": "2GB", "autoinstall_known_extensions": False},
    )
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET temp_directory = '{temporary}'")
    return con


def _write(
    con: duckdb.DuckDBPyConnection, query: str, out: Path, values: dict[str, str], width: int
) -> int:
    reader = con.sql(query, params=values).to_arrow_reader(65_536)
    rows = 0
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, reader.schema) as writer:
        for batch in reader:
            for index in range(width):
                longest = pc.max(pc.binary_length(batch.column(index))).as_py() or 0
                if longest > MAX_CELL:
                    raise Refused(
                        f"has a cell of {longest} bytes in column {index + 1}; a cell holds at "
                        f"most {MAX_CELL >> 20} MB"
                    )
            rows += len(batch)
            writer.write_batch(batch)
    return rows


def _write_empty(out: Path) -> None:
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, pa.schema([("row", pa.int64())])):
        pass


def _append(out: Path, rejects: Sequence[tuple[int, str]], width: int) -> None:
    """Put the lines that could not be split, each with its row number, where they stand among
    the rows.
    """
    with pa.OSFile(str(out), "rb") as file:
        whole = pa.ipc.open_file(file).read_all()
    total = len(whole) + len(rejects)
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
        pa.array(np.setdiff1d(np.arange(1, total + 1), numbers)),
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
    """Return the numbers, from 1, of the lines with nothing on them; a line break in quotes ends
    no line.
    """
    found: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    lines, quoted, ended = 0, 0, True
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            # \r\n is one line break, also across blocks.
            block += file.read(1) if block.endswith(b"\r") else b""
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            codes = np.frombuffer(
                block.replace(b'\\"', b"__") if dialect.escape == "backslash" else block, np.uint8
            )
            inside = (quoted + np.cumsum(codes == ord('"'))) % 2
            ends = (codes == ord("\n")) & (inside == 0)
            found.append(lines + np.cumsum(ends)[ends & np.concatenate([[ended], ends[:-1]])])
            lines, quoted, ended = lines + int(ends.sum()), int(inside[-1]), bool(ends[-1])
    return np.concatenate([np.zeros(0, np.int64), *found])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
