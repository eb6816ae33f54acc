"""One request of the reader of foreign files: a file in any format becomes text columns."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.ingestion.decompression import NotUtf8, Refused
from include.ingestion.file_worker import convert
from tests.builders.workbooks import workbook

TEXT = "id;name\n1;Zoë\n"


def answer(
    path: Path, kind: str = "csv", dialect: dict[str, Any] | None = None, **picked: str
) -> dict[str, Any]:
    return convert(
        path=str(path),
        kind=kind,
        declared=["id", "name"],
        out=str(path.parent / "out.arrow"),
        temporary=str(path.parent),
        dialect=dialect,
        **picked,
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
        (TEXT.encode("utf-16-le"), "utf-16-le"),
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


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("csv", "id,name\n1,Ann\n2\n"),
        ("jsonl", '{"id": 1, "name": "Ann"}\n{"id"\n'),
    ],
)
def test_what_a_folder_is_called_is_no_column(tmp_path: Path, kind: str, text: str) -> None:
    folder = tmp_path / "month=1" / "row=5"
    folder.mkdir(parents=True)
    path = folder / f"in.{kind}"
    path.write_text(text)
    assert answer(path, kind)["columns"] == ["id", "name"]
    broken = text.split("\n")[-2]
    assert rows(folder) == [
        {"c0": "1", "c1": "Ann", "row": 1, "malformed": None},
        {"c0": None, "c1": None, "row": 2, "malformed": broken},
    ]


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


def test_a_zip_is_read_as_its_member_is(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", TEXT)
        archive.writestr("b.txt.gz", gzip.compress(TEXT.encode()))
    with pytest.raises(Refused, match="holds 2 tables"):
        answer(path, "zip")
    for member, other in (("a.csv", "b.txt.gz"), ("b.txt.gz", "a.csv")):
        found = answer(path, "zip", member=member)
        assert (found["kind"], found["member"], found["members"]) == ("csv", member, [other])
        assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert rows(tmp_path) == [{"c0": "1", "c1": "Zoë", "row": 1}]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.zip", "out.arrow"]


def test_a_member_of_no_zip_and_a_zip_of_that_name_alone_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    path.write_text(TEXT)
    with pytest.raises(Refused, match=r"is no zip file, so it has no member 'a.csv'"):
        answer(path, "zip", member="a.csv")
    with pytest.raises(Refused, match="is no zip file, although"):
        answer(path, "zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("table", TEXT)
    with pytest.raises(Refused, match="holds 'table', whose name says no format"):
        answer(path, "zip", member="table")


def test_a_workbook_says_its_sheet_and_its_layout(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", ("A", [["Title"], ["id", "x"], [1, "a"]]), ("B", [["y"]]))
    found = answer(path, "xlsx")
    assert (found["sheet"], found["sheets"], found["columns"]) == ("A", ["B"], ["id", "x"])
    assert (found["dialect"]["skip"], found["sha256"]) == (
        1,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    assert answer(path, "xlsx", {"header": False, "skip": 2})["columns"] == ["c1", "c2"]
    assert answer(path, "xlsx", sheet="B")["columns"] == ["y"]
    with pytest.raises(Refused, match=r"\(or an Excel workbook\); write format: xlsx"):
        answer(path, "csv")
    path.write_bytes(b"")
    assert answer(path, "xlsx")["columns"] == []
