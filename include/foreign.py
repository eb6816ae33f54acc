"""The reader of foreign files: a child process with limits that turns one file after another into plain text columns.

DuckDB and Arrow treat data files as trusted, so a file from outside is opened here and nowhere else. A request is one line
of JSON on stdin, its answer one line on stdout; the rows go to an Arrow file with the columns c0, c1, ... (text), `row` (the
number of the data row in the file) and, where a line could not be split into columns, `malformed` (that line).
Run by include/sources.py as `python -m include.foreign`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.unpacking import MAX_BYTES, Refused, first_line, plain

MEMORY = 6 << 30
CPU_SECONDS = 900
MAX_COLUMNS = 2_000
MAX_LINE = 4 << 20
MAX_CELL = 1 << 20
MAX_HEADER = 256 * 1024
MAX_ROWS = 500_000_000
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
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    for line in sys.stdin:
        try:
            answer = convert(**json.loads(line))
        except Refused as refusal:
            answer = {"error": str(refusal)}
        except (duckdb.Error, pa.ArrowException, OSError, ValueError) as error:
            answer = {"error": f"cannot be read: {first_line(error)}"}
        except MemoryError:
            answer = {"error": f"needs more than {MEMORY >> 30} GB of memory to read; split it into smaller files"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def convert(*, path: str, kind: str, declared: Sequence[str], out: str, temporary: str) -> dict[str, Any]:
    """Turn one file into an Arrow file of text columns.

    Returns:
        `columns` (the header, in order), `rows`, `sha256` of the file.
    """
    source = Path(path)
    with source.open("rb") as file:
        head = file.read(8)
    if kind == "parquet":
        columns, rows = _parquet(source, Path(out), temporary)
        return {"columns": columns, "rows": rows, "sha256": _sha256(source)}
    text, digest = plain(source, head, Path(temporary) / "unpacked")
    try:
        if text.stat().st_size == 0:
            return {"columns": [], "rows": 0, "sha256": digest}
        reader = _csv if kind == "csv" else _jsonl
        columns, rows = reader(text, Path(out), declared, temporary)
    finally:
        if text != source:
            text.unlink(missing_ok=True)
    return {"columns": columns, "rows": rows, "sha256": digest}


def _csv(path: Path, out: Path, declared: Sequence[str], temporary: str) -> tuple[list[str], int]:
    columns, separator = _header(path, declared)
    names = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(columns)))
    with _connect(temporary) as con:
        query = (
            f"SELECT *, row_number() OVER () AS row FROM read_csv($path, columns = {{{names}}}, header = true, "
            "auto_detect = false, delim = $separator, quote = '\"', escape = '\"', strict_mode = true, "
            f"store_rejects = true, rejects_limit = 0, max_line_size = {MAX_LINE})"
        )
        rows = _write(con, query, out, {"path": str(path), "separator": separator}, len(columns))
        rejects = con.execute(
            "SELECT line, any_value(error_type)::VARCHAR, any_value(csv_line), any_value(error_message) FROM reject_errors "
            "GROUP BY line ORDER BY line"
        ).fetchall()
    for line, problem, _, message in rejects:
        if "LINE SIZE" in problem or "MAXIMUM" in problem:
            raise Refused(f"line {line} is longer than {MAX_LINE >> 20} MB; a cell holds at most {MAX_CELL >> 20} MB")
        if "UNQUOTED" in problem and "unterminated" in message.lower():
            raise Refused(f"line {line} opens a quote that is never closed; mend the quoting")
    if rejects:
        empty = _empty_lines(path)  # DuckDB counts them as lines and makes no rows of them
        numbers = [line - 1 - int(np.searchsorted(empty, line)) for line, *_ in rejects]
        texts = [(text or "").lstrip("\r\n")[:KEPT_LINE] for _, _, text, _ in rejects]
        _append(out, list(zip(numbers, texts, strict=True)), len(columns))
    return columns, rows + len(rejects)


def _header(path: Path, declared: Sequence[str]) -> tuple[list[str], str]:
    """Return the header's names and the separator: the one that finds most of the declared names."""
    with path.open("rb") as file:
        start = file.read(MAX_HEADER + 1)
    if b"\n" not in start and len(start) > MAX_HEADER:
        raise Refused(f"has a first line of more than {MAX_HEADER // 1024} KB; a header is a line of column names")
    text = start.decode("utf-8", "ignore")
    best: tuple[tuple[int, int], list[str], str] = ((-1, -1), [], ",")
    for separator in (",", ";", "\t", "|"):
        names = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])]
        score = (len(set(names) & set(declared)), len(names))
        if score > best[0]:
            best = (score, names, separator)
    _check_columns(best[1])
    return best[1], best[2]


def _check_columns(names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise Refused(f"has {len(names)} columns; at most {MAX_COLUMNS} are read")
    lowered = [name.lower() for name in names]
    for index, name in enumerate(names):
        if not name:
            raise Refused(f"column {index + 1} of its header has no name; name it")
        if lowered.index(name.lower()) != index:
            first = names[lowered.index(name.lower())]
            raise Refused(
                f"has the column {name!r} twice (columns {lowered.index(name.lower()) + 1}, {index + 1}: {first!r}, {name!r})"
            )


def _jsonl(path: Path, out: Path, _declared: Sequence[str], temporary: str) -> tuple[list[str], int]:
    lines = (
        "SELECT line, row_number() OVER () AS row FROM read_csv($path, columns = {'line': 'VARCHAR'}, header = false, "
        "auto_detect = false, delim = '\x01', quote = '', escape = '', strict_mode = false, "
        f"max_line_size = {MAX_LINE}) WHERE trim(line) <> ''"
    )
    with _connect(temporary) as con:
        con.execute(
            "CREATE TEMP TABLE lines AS SELECT row, line, "
            # Of a key that stands twice DuckDB would take the first value, without a word.
            "CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT' "
            f"THEN len(json_keys(line)) = len(list_distinct(json_keys(line))) ELSE false END AS whole FROM ({lines})",
            {"path": str(path)},
        )
        names = con.execute(
            "SELECT name FROM (SELECT unnest(CASE WHEN whole THEN json_keys(line) ELSE [] END) AS name, row FROM lines) "
            "GROUP BY name ORDER BY min(row), name"
        ).fetchall()
        columns = [name for (name,) in names]
        _check_columns(columns)
        picked = "".join(f"CASE WHEN whole THEN line->>{_pointer(name)} END AS c{index}, " for index, name in enumerate(columns))
        query = f"SELECT {picked} row, CASE WHEN NOT whole THEN line[:{KEPT_LINE}] END AS malformed FROM lines ORDER BY row"
        return columns, _write(con, query, out, {}, len(columns))


def _pointer(name: str) -> str:
    return "'/" + name.replace("~", "~0").replace("/", "~1").replace("'", "''") + "'"


def _parquet(path: Path, out: Path, temporary: str) -> tuple[list[str], int]:
    size = path.stat().st_size
    if size == 0:
        _write_empty(out)
        return [], 0
    try:
        meta = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"is no whole Parquet file: it ends at byte {size} without a valid footer ({first_line(error)})") from None
    columns = list(meta.schema.to_arrow_schema().names)
    _check_columns(columns)
    declared = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
    if meta.num_rows > MAX_ROWS or declared > MAX_BYTES:
        raise Refused(
            f"declares {meta.num_rows} rows and {declared} bytes; at most {MAX_ROWS} rows and {MAX_BYTES >> 30} GB are read"
        )
    with _connect(temporary) as con:
        real = [row[0] for row in con.execute("DESCRIBE SELECT * FROM read_parquet($path)", {"path": str(path)}).fetchall()]
        picked = ", ".join(f'CAST("{_quoted(name)}" AS VARCHAR) AS c{index}' for index, name in enumerate(real))
        query = f"SELECT {picked}, row_number() OVER () AS row FROM read_parquet($path)"
        return columns, _write(con, query, out, {"path": str(path)}, len(columns))


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def _connect(temporary: str) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "2GB", "autoinstall_known_extensions": False})
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET temp_directory = '{temporary}'")
    return con


def _write(con: duckdb.DuckDBPyConnection, query: str, out: Path, values: dict[str, str], width: int) -> int:
    reader = con.sql(query, params=values).to_arrow_reader(65_536)
    rows = 0
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, reader.schema) as writer:
        for batch in reader:
            for index in range(width):
                longest = pc.max(pc.binary_length(batch.column(index))).as_py() or 0
                if longest > MAX_CELL:
                    raise Refused(
                        f"has a cell of {longest} bytes in column {index + 1}; a cell holds at most {MAX_CELL >> 20} MB"
                    )
            rows += len(batch)
            writer.write_batch(batch)
    return rows


def _write_empty(out: Path) -> None:
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, pa.schema([("row", pa.int64())])):
        pass


def _append(out: Path, rejects: Sequence[tuple[int, str]], width: int) -> None:
    """Put the lines that could not be split, each with its row number, where they stand among the rows."""
    with pa.OSFile(str(out), "rb") as file:
        whole = pa.ipc.open_file(file).read_all()
    total = len(whole) + len(rejects)
    numbers = np.array([number for number, _ in rejects], dtype=np.int64)
    if numbers.min() < 1 or numbers.max() > total or len(np.unique(numbers)) < len(numbers):
        # A broken line with a single quote hides empty lines from `_empty_lines`: as near as can be told, none twice.
        steps = np.arange(len(numbers))
        numbers = np.maximum.accumulate(np.clip(numbers, 1, total) - steps) + steps
        numbers = np.minimum(numbers, total - steps[::-1])
    whole = whole.set_column(whole.column_names.index("row"), "row", pa.array(np.setdiff1d(np.arange(1, total + 1), numbers)))
    whole = whole.append_column("malformed", pa.nulls(len(whole), pa.string()))
    none = {f"c{index}": pa.nulls(len(rejects), pa.string()) for index in range(width)}
    added = pa.table({**none, "row": pa.array(numbers), "malformed": pa.array([text for _, text in rejects], pa.string())})
    ordered = pa.concat_tables([whole, added.cast(whole.schema)]).sort_by("row")
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, whole.schema) as writer:
        writer.write_table(ordered)


def _empty_lines(path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the numbers, from 1, of the lines with nothing on them; a line break in quotes ends no line."""
    found: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    lines, quoted, ended = 0, 0, True
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            block += file.read(1) if block.endswith(b"\r") else b""  # \r\n is one line break, also across blocks
            codes = np.frombuffer(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), np.uint8)
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
