"""A sheet of an Excel workbook becomes the texts that a CSV of it would hold."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xlsxwriter

from include.ingestion import decompression, xlsx_parts
from include.ingestion.decompression import Refused
from include.ingestion.dialects import Dialect
from include.ingestion.xlsx_columns import Sheet, convert_xlsx
from tests.builders.workbooks import edited, workbook

SHEET = "xl/worksheets/sheet1.xml"


def converted(
    path: Path, sheet: str | None = None, dialect: Dialect | None = None
) -> tuple[Sheet, list[list[Any]]]:
    """Return what is said of a workbook, and its rows without their numbers."""
    out = path.with_suffix(".arrow")
    read = convert_xlsx(path, out, sheet, dialect or Dialect(), guess=dialect is None)
    if not read.columns:
        return read, []
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert rows.column("row").to_pylist() == list(range(1, read.rows + 1))
    return read, [list(row.values())[:-1] for row in rows.to_pylist()]


@pytest.mark.parametrize("from_1904", [False, True])
def test_values_are_the_texts_of_a_csv_in_both_date_systems(
    tmp_path: Path, from_1904: bool
) -> None:
    path = workbook(
        tmp_path / "in.xlsx",
        (
            "Data",
            [
                ["id", "amount", "day", "at", "paid", "sum", "note"],
                [
                    1,
                    1.5,
                    date(2024, 2, 29),
                    datetime(2024, 5, 1, tzinfo=UTC),
                    True,
                    ("=A2+1", 2),
                    " x\ny ",
                ],
                [
                    2.0,
                    -0.25,
                    date(1999, 12, 31),
                    datetime(2024, 5, 1, 12, 30, 15, tzinfo=UTC),
                    False,
                ],
                [
                    3,
                    1e-7,
                    None,
                    datetime(2024, 5, 1, 0, 0, 0, 250_000, tzinfo=UTC),
                    None,
                    ("=1/0", "#DIV/0!"),
                ],
                [4, 20.0, None, None, None, ("=NA()", "#N/A"), ("=A2&B2", "1x")],
                [123456789012345, 1.5e18, None, None, None, None, "#N/A"],
            ],
        ),
        from_1904=from_1904,
    )
    read, rows = converted(path)
    assert read.columns == ["id", "amount", "day", "at", "paid", "sum", "note"]
    assert rows == [
        ["1", "1.5", "2024-02-29", "2024-05-01 00:00:00", "true", "2", " x\ny "],
        ["2", "-0.25", "1999-12-31", "2024-05-01 12:30:15", "false", None, None],
        ["3", "1e-07", None, "2024-05-01 00:00:00.25", None, None, None],
        ["4", "20", None, None, None, None, "1x"],
        ["123456789012345", "1500000000000000000", None, None, None, None, "#N/A"],
    ]


def test_days_around_the_leap_day_that_1900_had_not(tmp_path: Path) -> None:
    book = xlsxwriter.Workbook(str(tmp_path / "in.xlsx"))
    sheet, day = book.add_worksheet(), book.add_format({"num_format": "yyyy-mm-dd"})
    clock, span = (
        book.add_format({"num_format": "hh:mm"}),
        book.add_format({"num_format": "[h]:mm"}),
    )
    sheet.write_row(0, 0, ["day", "clock", "span"])
    for number, (serial, time, hours) in enumerate([(1, 0.5, 1.5), (59, 0.25, 0.5), (61, 0, 2)], 1):
        sheet.write_number(number, 0, serial, day)
        sheet.write_number(number, 1, time, clock)
        sheet.write_number(number, 2, hours, span)
    book.close()
    assert converted(tmp_path / "in.xlsx")[1] == [
        ["1900-01-01", "12:00:00", "36:00:00"],
        ["1900-02-28", "06:00:00", "12:00:00"],
        ["1900-03-01", "00:00:00", "48:00:00"],
    ]


def test_the_table_is_found_below_titles_and_beside_empty_rows_and_columns(tmp_path: Path) -> None:
    rows = [
        [],
        [None, "Loans of 2024"],
        [],
        [None, "id", "state", None, 2024],
        [None, 1, "a", None, 7],
        [],
        [None, 2, "b", None, 8],
        [None, "", None],
    ]
    path = workbook(tmp_path / "in.xlsx", ("Data", rows))
    read, found = converted(path)
    assert (read.dialect.skip, read.dialect.header) == (3, True)
    assert read.columns == ["id", "state", "Unnamed: 2", "2024"]
    assert found == [["1", "a", None, "7"], ["2", "b", None, "8"]]
    read, found = converted(path, dialect=Dialect(header=False, skip=4))
    assert (read.columns, len(found)) == (["c1", "c2", "c3", "c4"], 2)
    assert converted(path, dialect=Dialect(skip=9))[0].columns == []


def test_a_merged_cell_counts_for_each_row_that_it_covers(tmp_path: Path) -> None:
    book = xlsxwriter.Workbook(str(tmp_path / "in.xlsx"))
    sheet = book.add_worksheet()
    for number, row in enumerate(
        [["region", "id"], ["", 1], ["", 2], ["south", 3], ["", 4], ["north", 5], ["", None]]
    ):
        sheet.write_row(number, 0, row)
    sheet.merge_range("A2:A3", "west")
    sheet.merge_range("A6:A7", "north")
    book.close()
    assert converted(tmp_path / "in.xlsx")[1] == [
        ["west", "1"],
        ["west", "2"],
        ["south", "3"],
        [None, "4"],
        ["north", "5"],
    ]


def test_names_below_a_merged_cell_are_no_row_and_have_its_name_before_them(tmp_path: Path) -> None:
    """They were the first row, without an id, so that the ids were none that name a row."""
    book = xlsxwriter.Workbook(str(tmp_path / "in.xlsx"))
    sheet = book.add_worksheet()
    sheet.merge_range("A1:F1", "Loans of 2024")
    sheet.merge_range("A3:A4", "id")
    sheet.merge_range("B3:C3", "sales")
    sheet.merge_range("D3:E3", "place")
    sheet.write_row(2, 5, ["state"])
    sheet.write_row(3, 1, [2022, 2023, "city", "zone"])
    sheet.write_row(4, 0, [7, 1.5, 2.5, "Bergen", "B", "a"])
    sheet.write_row(5, 0, [8, 3.5, 4.5, "Oslo", "O", "b"])
    book.close()
    read, rows = converted(tmp_path / "in.xlsx")
    assert (read.dialect.skip, read.dialect.header) == (2, True)
    names = ["id", "sales 2022", "sales 2023", "place city", "place zone", "state"]
    table = [["7", "1.5", "2.5", "Bergen", "B", "a"], ["8", "3.5", "4.5", "Oslo", "O", "b"]]
    assert (read.columns, rows) == (names, table)
    assert converted(tmp_path / "in.xlsx", dialect=read.dialect)[1] == table
    below = converted(tmp_path / "in.xlsx", dialect=Dialect(skip=3))
    assert below[0].columns == ["Unnamed: 0", "2022", "2023", "city", "zone", "Unnamed: 5"]
    assert below[1] == table


def test_a_row_below_a_wide_cell_is_a_row_where_it_has_more_than_names(tmp_path: Path) -> None:
    book = xlsxwriter.Workbook(str(tmp_path / "in.xlsx"))
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, ["id", "name"])
    sheet.merge_range("B1:C1", "name")
    sheet.write_row(1, 0, [1, "Ann", "Lee"])
    sheet.write_row(2, 0, [2, "Bo", "Ek"])
    book.close()
    assert converted(tmp_path / "in.xlsx")[1] == [["1", "Ann", "Lee"], ["2", "Bo", "Ek"]]


def test_the_first_sheet_that_is_seen_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    book = xlsxwriter.Workbook(str(tmp_path / "in.xlsx"))
    for name in ("Hidden", "Mine", "Empty", "Läger"):
        sheet = book.add_worksheet(name)
        if name != "Empty":
            sheet.write_column(0, 0, ["name", name])
    book.worksheets()[1].activate()
    book.worksheets()[1].set_first_sheet()
    book.worksheets()[0].hide()
    book.add_chartsheet("Chart")
    book.close()
    path = tmp_path / "in.xlsx"
    read, rows = converted(path)
    assert (read.name, read.others, rows) == ("Mine", ("Empty", "Läger"), [["Mine"]])
    assert converted(path, "Läger")[1] == [["Läger"]]
    assert converted(path, "Hidden")[1] == [["Hidden"]]
    with pytest.raises(Refused, match=r"no sheet 'Chart'; write one of \['Hidden', 'Mine'"):
        converted(path, "Chart")
    with pytest.raises(Refused, match=r"no value in its sheet 'Empty'; write sheet .*'Mine'"):
        converted(path, "Empty")


def test_a_number_whose_digits_are_lost_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id"], [1], [9007199254740993]]))
    edited(path, SHEET, lambda text: text.replace(b"9007199254740992", b"948819542493416689"))
    with pytest.raises(Refused, match=r"the number \d+ in A3, .*15 digits.*store it as text"):
        converted(path)


@pytest.mark.parametrize("stored", [b"<v></v>", b"<v/>", b""])
def test_a_formula_without_its_value_is_named(tmp_path: Path, stored: bytes) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id", "sum"], [1, ("=A2+1", 2)]]))
    edited(path, SHEET, lambda text: text.replace(b"<v>2</v>", stored))
    with pytest.raises(Refused, match=r"formula without its value in B2 of sheet 'S': open it in"):
        converted(path)


def test_a_formula_that_gives_no_text_is_no_value(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id", "sum"], [1, ("=A2+1", 2)], [3]]))
    edited(
        path,
        SHEET,
        lambda text: text.replace(b'<c r="B2">', b'<c r="B2" t="str">').replace(
            b"<v>2</v></c></row>", b"<v></v></c></row>"
        ),
    )
    assert converted(path)[1] == [["1", None], ["3", None]]


def test_a_bomb_is_refused_before_the_library_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id"], [1]]))
    edited(
        path, SHEET, lambda text: text.replace(b"<sheetData>", b"<sheetData>" + b" " * (8 << 20))
    )
    monkeypatch.setattr(decompression, "RATIO_FROM", 1 << 20)
    with pytest.raises(Refused, match="more than 200 times its size"):
        converted(path)


def test_a_value_far_outside_of_the_table_is_told(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id"], [1]]))
    far = b'<row r="1048576"><c r="XFD1048576"%s</row></sheetData>'
    edited(
        path,
        SHEET,
        lambda text: text.replace(b'ref="A1:A2"', b'ref="A1:XFD1048576"').replace(
            b"</sheetData>", far % b' s="1"/>'
        ),
    )
    assert converted(path)[1] == [["1"]], "a format alone is no value"
    edited(path, SHEET, lambda text: text.replace(b' s="1"/>', b"><v>7</v></c>"))
    with pytest.raises(Refused, match=r"1048576 rows and 16384 columns.*remove what stands far"):
        converted(path)


def test_what_is_no_workbook_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id"], [1]]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match="no Excel workbook that can be read"):
        converted(path)
    path.write_bytes(whole)
    edited(path, "xl/workbook.xml", lambda text: b"<workbook><")
    with pytest.raises(Refused, match=r"no Excel workbook that can be read|is damaged in"):
        converted(path)
    path.write_bytes(whole)
    entity = b'<!DOCTYPE w [<!ENTITY a "aaaa">]><sheets>&a;</sheets>'
    edited(path, "xl/workbook.xml", lambda text: text.replace(b"<sheets>", entity + b"<sheets>"))
    with pytest.raises(Refused, match=r"no Excel workbook that can be read|is damaged in"):
        converted(path)
    path.write_bytes(whole)
    monkeypatch.setattr(xlsx_parts, "MAX_INDEX", 10)
    with pytest.raises(Refused, match=r"xl/workbook.xml of more than"):
        converted(path)


def test_a_name_that_stands_twice_is_told(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", ("S", [["id", "ID"], [1, 2]]))
    with pytest.raises(Refused, match="has the column 'ID' twice"):
        converted(path)


def test_a_row_that_repeats_the_header_is_no_row_and_leaves_its_number_free(tmp_path: Path) -> None:
    header: list[Any] = ["id", "day ", None]
    rows = [header, [1, "a", None], header, [None, "day ", None], [2, "b", "c"]]
    path = workbook(tmp_path / "in.xlsx", ("S", rows))
    out = tmp_path / "out.arrow"
    read = convert_xlsx(path, out, None, Dialect(), guess=False)
    with pa.OSFile(str(out), "rb") as file:
        table = pa.ipc.open_file(file).read_all()
    assert (read.rows, table.column("row").to_pylist()) == (3, [1, 3, 4])
    assert table.column("c0").to_pylist() == ["1", None, "2"]
