"""A CSV becomes text columns; a line that cannot be split stands where it stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.ingestion import csv_columns
from include.ingestion.csv_columns import convert_csv
from include.ingestion.decompression import Refused
from include.ingestion.dialects import Dialect
from include.ingestion.text_columns import MAX_HEADER

DECLARED = ["id", "name"]


def converted(folder: Path, text: str, dialect: Dialect | None = None) -> tuple[Any, Any]:
    """Return the columns of a text and its rows as lists."""
    path, out = folder / "in.csv", folder / "out.arrow"
    path.write_bytes(text.encode())
    columns, count = convert_csv(path, out, DECLARED, str(folder), dialect or Dialect())
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert len(rows) == count
    return columns, [list(row.values()) for row in rows.to_pylist()]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_separator_is_found_by_the_declared_names(tmp_path: Path, separator: str) -> None:
    text = "id,name\n1,Ann\n2,\n".replace(",", separator)
    assert converted(tmp_path, text) == (DECLARED, [["1", "Ann", 1], ["2", None, 2]])


def test_quotes_hold_separators_line_breaks_and_quotes(tmp_path: Path) -> None:
    text = 'id,name\n1,"a, ""b""\nc"\n2,x\n'
    assert converted(tmp_path, text)[1] == [["1", 'a, "b"\nc', 1], ["2", "x", 2]]
    backslash = Dialect(escape="backslash")
    text = 'id,name\n1,"a \\"b\\""\n'
    assert converted(tmp_path, text, backslash)[1] == [["1", 'a "b"', 1]]


def test_a_text_of_several_lines_is_one_value_though_they_hold_separators(tmp_path: Path) -> None:
    text = 'id,name\n1,"Main St 1\nSpringfield, IL"\n2,"12,5\n"\n'
    assert [row[1] for row in converted(tmp_path, text)[1]] == [
        "Main St 1\nSpringfield, IL",
        "12,5\n",
    ]


def test_a_quote_is_a_letter_where_values_stand_in_none(tmp_path: Path) -> None:
    text = 'id,name\n1,"Great\n\n2,"\nBROKEN"\n3,TV 42"\n'
    rows = converted(tmp_path, text, Dialect(quote="none"))[1]
    assert [row[:3] for row in rows] == [
        ["1", '"Great', 1],
        ["2", '"', 2],
        [None, None, 3],
        ["3", 'TV 42"', 4],
    ]
    assert rows[2][3] == 'BROKEN"'


def test_empty_lines_alone_are_no_columns_and_no_rows(tmp_path: Path) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.arrow"
    for text in ("\n", "\r\n\r\n"):
        path.write_bytes(text.encode())
        for dialect in (Dialect(), Dialect(";", header=False, quote="none")):
            assert convert_csv(path, out, DECLARED, str(tmp_path), dialect) == ([], 0)
    with pytest.raises(Refused, match="no line behind the 2 that are left out; mend skip"):
        convert_csv(path, out, DECLARED, str(tmp_path), Dialect(skip=2))


def test_columns_without_a_header_are_numbered(tmp_path: Path) -> None:
    columns, rows = converted(tmp_path, "1,Ann\n", Dialect(",", header=False))
    assert (columns, rows) == (["c1", "c2"], [["1", "Ann", 1]])


def test_broken_lines_stand_where_they_stood_empty_lines_are_none(tmp_path: Path) -> None:
    text = 'id,name\n1,a\n\nBROKEN\n2,"b\n\nb"\n3,c,d\n4,e\n'
    rows = converted(tmp_path, text)[1]
    assert [(row[2], row[0], row[3]) for row in rows] == [
        (1, "1", None),
        (2, None, "BROKEN"),
        (3, "2", None),
        (4, None, "3,c,d"),
        (5, "4", None),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('id,name\n1,a\n2,"b\n3,c\n', "line 3 opens a quote that is never closed; mend"),
        ('id,name\n1,"a \\"b, c\n', r"escape: backslash"),
        ("id,name\nx\ny\n", r"no line that could be read as its 2 columns.*line 2, is 'x'"),
        (
            'id,name,n\n1,"a,5\n2,b,6\n\n3,c",7\n4,d,8\n',
            r"2 more lines of the table in column 'name' of row 1: a quote \(\"\) opens it",
        ),
        ('id,n,name\n1,5,"\n2,6,"\n3,7,x\n', "1 more lines of the table in column 'name' of row 1"),
        (
            'id,n,"name\n1,5,x\n2,6,y"\n3,7,z\n',
            "2 more lines of the table in the name 'name' in its header",
        ),
        ('id,n,"name\n1,5,x\n2,6,y\n', "opens a quote in its header, before 'name', that is never"),
        ("id,id\n1,2\n", "has the column 'id' twice"),
        ("id,ID\n1,2\n", r"twice \(columns 1, 2: 'id', 'ID'\)"),
        ("a report\nof 2026\nid,name\n1,a\n", r"header in line 3.*skip: 2"),
        ("x" * (MAX_HEADER + 1), "first line of more than 256 KB"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        converted(tmp_path, text)


def test_a_line_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_columns, "MAX_LINE", 1 << 16)
    with pytest.raises(Refused, match=r"line 3 is longer than"):
        converted(tmp_path, f"id,name\n1,a\n2,{'x' * (1 << 17)}\n")


def test_empty_lines_are_counted_over_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'\r\nid,name\r\n\r\n1,"a\r\n\r\n"\r\n\r\n\n2,b\r\r3,c')
    for block in (1, 2, 3, 7, 1 << 20):
        monkeypatch.setattr(csv_columns, "BLOCK", block)
        assert list(csv_columns._empty_lines(path, Dialect())) == [1, 3, 5, 6, 8]


def test_lines_that_repeat_the_header_are_no_rows_and_the_others_keep_their_numbers(
    tmp_path: Path,
) -> None:
    text = "id, name\n1,a\nid,name\n2,b\nBROKEN\n id ,name\n3,name\nid,c\n"
    columns, rows = converted(tmp_path, text)
    assert columns == DECLARED
    assert [(row[2], row[0], row[1], row[3]) for row in rows] == [
        (1, "1", "a", None),
        (3, "2", "b", None),
        (4, None, None, "BROKEN"),
        (6, "3", "name", None),
        (7, "id", "c", None),
    ]


def test_a_header_behind_a_mark_of_byte_order_is_no_row(tmp_path: Path) -> None:
    columns, rows = converted(tmp_path, "id,name\n1,a\n\ufeffid,name\n2,\ufeffid\n,name\n")
    assert columns == DECLARED
    assert [row[:2] for row in rows] == [["1", "a"], ["2", "\ufeffid"], [None, "name"]]


def test_a_nameless_column_repeats_as_no_value(tmp_path: Path) -> None:
    columns, rows = converted(tmp_path, ",name\n0,a\n,name\n1,b\n")
    assert columns == ["Unnamed: 0", "name"]
    assert [row[:2] for row in rows] == [["0", "a"], ["1", "b"]]


def test_a_file_without_a_header_has_none_to_repeat(tmp_path: Path) -> None:
    _, rows = converted(tmp_path, "c1,c2\nx,y\nc1,c2\n", Dialect(",", header=False))
    assert len(rows) == 3
