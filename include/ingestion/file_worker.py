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

from include.ingestion.archives import answer_of, is_office, unpack_member
from include.ingestion.arff_columns import convert_arff
from include.ingestion.csv_columns import convert_csv
from include.ingestion.decompression import (
    MAX_BYTES,
    ZIP_HEADS,
    NotUtf8,
    Refused,
    Text,
    first_line,
    read_binary,
    read_text,
)
from include.ingestion.dialects import Dialect, guess_dialect, tidy_lines
from include.ingestion.feather_columns import convert_feather
from include.ingestion.formats import ZIP, kind_of
from include.ingestion.json_columns import convert_json_lines
from include.ingestion.parquet_columns import convert_parquet
from include.ingestion.xlsx_columns import convert_xlsx

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
    sheet: str | None = None,
    member: str | None = None,
) -> dict[str, Any]:
    """Turn one file into an Arrow file of text columns.

    Without a `dialect`, that of a CSV or a sheet is guessed.

    Returns:
        `kind` (the format, of a zip archive that of its member), `columns` (the header, in order),
        `rows`, `sha256` of the file, `dialect`, `nested` (columns that hold more than one value a
        row, with their types; they are left out), `member` and `sheet` (those that were read),
        `members` and `sheets` (the others).
    """
    source, folder = Path(path), Path(temporary)
    made = [folder / name for name in ("member", "unpacked", "tidied")]
    try:
        picked = None
        if _head(source).startswith(ZIP_HEADS) and not is_office(source):
            picked = unpack_member(source, made[0], wanted=member, kind=kind)
            kind = (kind_of(picked.name) or ZIP) if kind == ZIP else kind
            if kind == ZIP:
                raise Refused(
                    f"holds {picked.name[:80]!r}, whose name says no format; write format under "
                    "the source"
                )
        elif member is not None:
            raise Refused(f"is no zip file, so it has no member {member!r}; leave member out")
        if kind == ZIP:
            raise Refused(
                "is no zip file, although it is called one; mend its name, or write format under "
                "the source"
            )
        file = source if picked is None else picked.path
        answer: dict[str, Any] = {
            "kind": kind,
            "columns": [],
            "rows": 0,
            "dialect": None,
            "nested": {},
            "sheet": None,
            "sheets": [],
            **answer_of(picked),
        }
        if kind in ("csv", "jsonl", "json", "arff"):
            answer |= _convert_text(file, kind, declared, Path(out), temporary, dialect)
        else:
            answer |= _convert_binary(file, kind, declared, Path(out), temporary, dialect, sheet)
        if picked is not None or "sha256" not in answer:
            answer["sha256"] = _sha256(source)
        return answer
    finally:
        for path_made in made:
            path_made.unlink(missing_ok=True)


def _convert_text(
    source: Path,
    kind: str,
    declared: Sequence[str],
    out: Path,
    temporary: str,
    dialect: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Turn a text into an Arrow file; return what is known of it, its digest among that."""
    given = Dialect(**dialect) if dialect is not None else Dialect()
    text, given = _text(
        source, _head(source), Path(temporary) / "unpacked", given, guess=dialect is None
    )
    if text.path.stat().st_size == 0:
        return {"sha256": text.sha256, "dialect": asdict(given)}
    if kind == "csv":
        if dialect is None:
            given = guess_dialect(text.path, given.encoding)
        if text.mixed or given.skip or given.separator == " ":
            tidy = tidy_lines(text.path, Path(temporary) / "tidied", given, mixed=text.mixed)
            text = replace(text, path=tidy)
        columns, rows = convert_csv(text.path, out, declared, temporary, given)
    elif kind == "arff":
        columns, rows = convert_arff(text.path, out)
    else:
        columns, rows = convert_json_lines(
            text.path, out, temporary, whole=kind == "json", declared=declared
        )
    return {"sha256": text.sha256, "dialect": asdict(given), "columns": columns, "rows": rows}


def _convert_binary(
    source: Path,
    kind: str,
    declared: Sequence[str],
    out: Path,
    temporary: str,
    dialect: Mapping[str, Any] | None,
    sheet: str | None,
) -> dict[str, Any]:
    """Turn a file of a format that is no text into an Arrow file; return what is known of it."""
    file = read_binary(source, _head(source), Path(temporary) / "unpacked", kind=kind)
    if file.stat().st_size == 0:
        return {}
    if kind == "xlsx":
        given = Dialect(**dialect) if dialect is not None else Dialect()
        read = convert_xlsx(file, out, sheet, given, guess=dialect is None)
        return {
            "columns": read.columns,
            "rows": read.rows,
            "dialect": asdict(read.dialect),
            "sheet": read.name,
            "sheets": list(read.others),
        }
    convert_columns = convert_parquet if kind == "parquet" else convert_feather
    columns, rows, nested = convert_columns(file, out, temporary, declared)
    return {"columns": columns, "rows": rows, "nested": nested}


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


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
