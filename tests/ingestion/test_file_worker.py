"""One request of the reader of foreign files: a file in any format becomes text columns."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.ingestion.decompression import NotUtf8
from include.ingestion.file_worker import convert

TEXT = "id;name\n1;Zoë\n"


def answer(path: Path, kind: str = "csv", dialect: dict[str, Any] | None = None) -> dict[str, Any]:
    return convert(
        path=str(path),
        kind=kind,
        declared=["id", "name"],
        out=str(path.parent / "out.arrow"),
        temporary=str(path.parent),
        dialect=dialect,
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    with pa.OSFile(str(folder / "out.arrow"), "rb") as file:
        found: list[dict[str, Any]] = pa.ipc.open_file(file).read_all().to_pylist()
    return found


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode("cp1252"), "cp1252"),
        (TEXT.encode("utf-16"), "utf-16"),
        (TEXT.encode(), "utf-8"),
    ],
)
def test_without_a_dialect_encoding_and_separator_are_guessed_and_told(
    tmp_path: Path, data: bytes, encoding: str
) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(gzip.compress(data))
    found = answer(path)
    assert (found["columns"], found["rows"]) == (["id", "name"], 1)
    assert (found["dialect"]["encoding"], found["dialect"]["separator"]) == (encoding, ";")
    assert rows(tmp_path) == [{"c0": "1", "c1": "Zoë", "row": 1}]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.csv", "out.arrow"]


def test_a_declared_dialect_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(TEXT.encode("cp1252"))
    with pytest.raises(NotUtf8, match="encoding: cp1252"):
        answer(path, dialect={"separator": ";"})
    found = answer(path, dialect={"separator": ";", "encoding": "cp1252"})
    assert found["columns"] == ["id", "name"]


def test_lines_before_the_header_and_mixed_line_ends_are_tidied(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a report\nid,name\r\n1,Ann\n2,Bob\r\n")
    assert answer(path, dialect={"skip": 1})["rows"] == 2
    assert [row["c1"] for row in rows(tmp_path)] == ["Ann", "Bob"]


def test_an_empty_text_has_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"")
    found = answer(path, dialect={})
    assert (found["columns"], found["rows"]) == ([], 0)


def test_parquet_says_what_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [1], "tags": [["a"]]}), path)
    found = answer(path, "parquet")
    assert (found["columns"], found["dialect"]) == (["id"], None)
    assert list(found["nested"]) == ["tags"]
    assert rows(tmp_path) == [{"c0": "1", "row": 1}]
