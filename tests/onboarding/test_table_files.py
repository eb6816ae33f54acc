"""A person's table is read from a file, a folder, an archive or a workbook, as one table."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import SourceError
from include.onboarding import table_files
from include.onboarding.table_files import files_in, read_table
from tests.builders.workbooks import workbook


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_folder_of_files_with_one_header_is_one_table(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", b__csv="id,x\n3,c\n", a__csv="id,x\n1,a\n2,b\n", c__csv="id,x\n")
    put(folder, _SUCCESS="", __hidden__csv="no", README__md="about", empty__csv="")
    (folder / "more").mkdir()
    files = files_in(folder)
    assert files.glob == "*.csv"
    assert [path.name for path in files.files] == ["a.csv", "b.csv", "c.csv", "empty.csv"]
    read = read_table(folder)
    assert read.glob == "*.csv"
    assert read.rows.to_pylist() == [
        {"c0": "1", "c1": "a", "row": 1},
        {"c0": "2", "c1": "b", "row": 2},
        {"c0": "3", "c1": "c", "row": 3},
    ]


def test_endings_are_those_that_are_written(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", **{"A.CSV": "id\n1\n"})
    assert files_in(folder).glob == "*.CSV"
    pq.write_table(pa.table({"id": [1]}), folder / "b.parquet")
    with pytest.raises(SourceError, match=r"several endings \(1 .CSV, 1 .parquet\)"):
        files_in(folder)
    with pytest.raises(SourceError, match="holds no file of"):
        files_in(put(tmp_path / "none", x__md="a"))


def test_files_that_are_no_one_table_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(tmp_path / "in", a__csv="id,x\n1,a\n", b__csv="id,y\n2,b\n")
    with pytest.raises(
        SourceError, match=r"b.csv: its columns differ in \['x', 'y'\] from .* a.csv"
    ):
        read_table(folder)
    put(folder, b__csv="x,id\n2,b\n")
    with pytest.raises(SourceError, match=r"b.csv: its columns stand in another order"):
        read_table(folder)
    put(folder, b__csv="id;x\n2;b\n")
    with pytest.raises(SourceError, match=r"b.csv: is written otherwise .*\(separator ';'\)"):
        read_table(folder)
    put(folder, a__csv="", b__csv="")
    with pytest.raises(SourceError, match="in: is empty"):
        read_table(folder)
    monkeypatch.setattr(table_files, "MAX_FILES", 1)
    with pytest.raises(SourceError, match="holds 2 files; at most 1"):
        read_table(folder)


def test_objects_of_a_folder_may_name_their_values_in_any_order(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "in",
        a__jsonl='{"id": 1, "x": "a", "a": 7}\n',
        b__jsonl='{"x": "b", "a": 8, "id": 2}\nno object\n',
    )
    read = read_table(folder)
    assert read.answer["columns"] == ["id", "x", "a"]
    assert [tuple(row.values()) for row in read.rows.to_pylist()] == [
        ("1", "a", "7", 1, None),
        ("2", "b", "8", 2, None),
        (None, None, None, 3, "no object"),
    ]


def test_what_else_an_archive_and_a_workbook_hold_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.csv", "id\n1\n")
        archive.writestr("b.csv", "id\n2\n")
    with pytest.raises(SourceError, match=r"in.zip: holds 2 tables \('a.csv', 'b.csv'\)"):
        read_table(tmp_path / "in.zip")
    read = read_table(tmp_path / "in.zip", member="b.csv")
    assert read.rows.column("c0").to_pylist() == ["2"]
    assert list(read.fields()) == ['    member: "b.csv"  # read alone; others: "a.csv"']
    book = workbook(tmp_path / "in.xlsx", ("A", [["id"], [1]]), ("B #1", [["id"], [2]]))
    assert list(read_table(book).fields()) == ['    sheet: "A"  # read alone; others: "B #1"']
    assert read_table(book, sheet="B #1").rows.column("c0").to_pylist() == ["2"]
    assert list(read_table(workbook(book, ("A", [["id"], [1]]))).fields()) == []


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a draft is made from .csv, .*\.xlsx.*convert"):
        read_table(tmp_path / "a.pdf")
    with pytest.raises(SourceError, match="there is no such file"):
        read_table(tmp_path / "a.csv")


def test_rows_that_only_sum_up_are_found_at_the_end_alone(tmp_path: Path) -> None:
    lines = [f"{n},2025-01-0{n},{n % 2}" for n in range(1, 6)]
    text = "\n".join(["id,day,label", "Total,,0", *lines, "Grand Total,,2", ",Sum:,2"]) + "\n"
    rows = read_table(put(tmp_path / "in", a__csv=text) / "a.csv").rows
    assert table_files.closing_rows(rows, 3) == [7, 8]
    rows = read_table(put(tmp_path / "in", b__csv="id\nTotality\nall-in\n") / "b.csv").rows
    assert table_files.closing_rows(rows, 1) == []


def test_notes_and_empty_rows_below_a_table_are_none_of_its_rows(tmp_path: Path) -> None:
    lines = [f"{n},2025-01-0{n},{n % 2}" for n in range(1, 6)]
    notes = [",,", "Source: own reports,,", '"* preliminary, see page 3",,']
    text = "\n".join(["id,day,label", *lines, "Total,,2", *notes]) + "\n"
    rows = read_table(put(tmp_path / "in", a__csv=text) / "a.csv").rows
    assert table_files.closing_rows(rows, 3) == [6, 7, 8, 9]
    # Where rows of one cell stand between the others, they are rows.
    sparse = "\n".join(["id,day,label", "9,,", *lines, "7,,"]) + "\n"
    rows = read_table(put(tmp_path / "in", b__csv=sparse) / "b.csv").rows
    assert table_files.closing_rows(rows, 3) == []


def test_numbers_of_rows_have_gaps_where_a_header_stands_again(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", a__csv="id,x\n1,2\nid,x\n2,3\n", b__csv="id,x\n3,4\n")
    assert read_table(folder).rows.column("row").to_pylist() == [1, 3, 4]
