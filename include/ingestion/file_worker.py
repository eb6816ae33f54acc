"""The reader of foreign files: a child process with limits turns them into text columns.

DuckDB and Arrow treat data files as trusted, so a file from outside is opened here and nowhere
else. A request is one line of JSON on stdin, its answer one line on stdout; the rows go to an Arrow
file with the columns c0, c1, ... (text), `row` (the number of the data row in the file) and, where
a line could not be split into columns, `malformed` (that line). Run by
include/ingestion/file_reader.py as `python -m include.ingestion.file_worker`.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from include.ingestion.csv_columns import convert_csv
from include.ingestion.decompression import MAX_BYTES, NotUtf8, Refused, Text, first_line, read_text
from include.ingestion.dialects import Dialect, guess_dialect, tidy_lines
from include.ingestion.json_columns import convert_json_lines
from include.ingestion.parquet_columns import convert_parquet

MEMORY = 6 << 30  # bytes
CPU_SECONDS = 900


def main() -> int:
    """Answer requests until stdin ends."""
    # Text has at most MAX_BYTES; the columns made of it also hold row numbers, hence one GB more.
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
    """Turn one file into an Arrow file of text columns.

    Without a `dialect`, that of a CSV is guessed.

    Returns:
        `columns` (the header, in order), `rows`, `sha256` of the file, `dialect`, `nested` (columns
        that hold more than one value a row, with their types; they are left out).
    """
    source = Path(path)
    with source.open("rb") as file:
        head = file.read(8)
    if kind == "parquet":
        columns, rows, nested = convert_parquet(source, Path(out), temporary, declared)
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
                given = guess_dialect(text.path, given.encoding)
            if text.mixed or given.skip or given.separator == " ":
                tidy = tidy_lines(text.path, Path(temporary) / "tidied", given, mixed=text.mixed)
                text = replace(text, path=tidy)
            columns, rows = convert_csv(text.path, Path(out), declared, temporary, given)
        else:
            columns, rows = convert_json_lines(text.path, Path(out), temporary)
    finally:
        for file_made in (unpacked, Path(temporary) / "tidied"):
            file_made.unlink(missing_ok=True)
    return answer | {"columns": columns, "rows": rows, "dialect": asdict(given)}


def _text(
    source: Path, head: bytes, unpacked: Path, given: Dialect, *, guess: bool
) -> tuple[Text, Dialect]:
    """Return the checked text and its dialect.

    Where the dialect is guessed, its encoding is what the bytes can be read as.
    """
    try:
        return read_text(source, head, unpacked, encoding=given.encoding), given
    except NotUtf8 as refusal:
        if not guess:
            raise
        names = refusal.encodings
    for name in names[:-1]:
        try:
            return read_text(source, head, unpacked, encoding=name), replace(given, encoding=name)
        except Refused:
            continue
    return read_text(source, head, unpacked, encoding=names[-1]), replace(given, encoding=names[-1])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
