"""Excel workbooks as text columns; part of the child process that opens foreign files.

A cell becomes what a CSV would hold: a whole number without a point, dates and times in ISO, truth
values as true and false, a formula as the value that was stored with it, whatever the cell's format
shows. A cell of an error, such as #N/A, holds no value.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from include.ingestion.archives import member_pieces, open_archive
from include.ingestion.decompression import MAX_BYTES, Refused, first_line
from include.ingestion.dialects import ROWS as GUESSED
from include.ingestion.dialects import Dialect, guess_sheet, names_of
from include.ingestion.text_columns import check_columns, write_rows

MAX_CELLS = 60_000_000  # of the rectangle that holds all values: the library holds it in memory
MAX_INDEX = 16 << 20  # bytes of a part that lists the sheets
KNOWN = 100_000  # numbers
EXACT = 1 << 53  # whole numbers from here on are not all doubles, and a cell's number is a double
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
# A formula, and no value after it; texts may be empty. `x:` is a prefix that some writers give.
_UNSTORED = re.compile(
    rb"<(?:\w+:)?c\b(?![^>]*\bt=\"str\")[^>]*>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)"
    rb"\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>|</(?:\w+:)?c>)"
)
_VALUE = re.compile(rb"<(?:\w+:)?c\b[^>]*\br=\"([A-Z]{1,3})([0-9]{1,7})\"[^>/]*>\s*<")
_DIMENSION = re.compile(rb"<(?:\w+:)?dimension\b[^>]*\bref=\"(?:[A-Z0-9]+:)?([A-Z]+)([0-9]+)\"")
_OVERLAP = 4_096  # bytes: longer than what the expressions match of all but absurd cells

Cell = str | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was read of a workbook: the sheet, its columns and rows, how it is laid out.

    `others` are the other sheets with cells that a person sees.
    """

    name: str
    others: tuple[str, ...]
    columns: list[str]
    rows: int
    dialect: Dialect


def convert_xlsx(
    path: Path, out: Path, wanted: str | None, dialect: Dialect, *, guess: bool
) -> Sheet:
    """Turn a sheet of an Excel workbook into text columns: the one that is wanted, else the first.

    Of a dialect, `header` and `skip` count (rows of the sheet), and are found out where they are to
    be guessed. Rows without a value are left out. A merged cell's value counts for each row that it
    covers.

    Raises:
        Refused: it is damaged, hostile or too large, has no such sheet, or holds what a double or a
            reader without Excel cannot tell.
    """
    try:
        with CalamineWorkbook.from_path(path) as book:
            name, others = _choose(book, wanted)
            _check_parts(path, name)
            sheet = book.get_sheet_by_name(name)
    except (CalamineError, zipfile.BadZipFile) as error:
        raise Refused(
            f"is no Excel workbook that can be read ({first_line(error)}): save it in Excel or "
            "LibreOffice as .xlsx, without a password"
        ) from None
    if sheet.start is None:
        more = f"; write sheet under the source, one of {list(others)}" if others else ""
        raise Refused(f"has no value in its sheet {name!r}{more}")
    rows = _Rows(sheet)
    if guess:
        first = [[cell or "" for cell in row] for _, row in islice(rows.texts(), GUESSED)]
        skip, header = guess_sheet(first)
        dialect = replace(dialect, skip=skip, header=header)
    columns, count = _write(rows, out, dialect)
    return Sheet(name, others, columns, count, dialect)


def _choose(book: CalamineWorkbook, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the sheet to read and the other ones; those that are hidden have to be asked for."""
    sheets = [sheet for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    seen = [sheet.name for sheet in sheets if sheet.visible == SheetVisibleEnum.Visible]
    names = [sheet.name for sheet in sheets]
    if wanted is not None and wanted not in names:
        raise Refused(f"has no sheet {wanted!r}; write one of {names} as sheet under the source")
    if not names:
        raise Refused("has no sheet with cells; save the table as a worksheet")
    name = wanted or next(iter(seen), names[0])
    return name, tuple(other for other in seen if other != name)


def _check_parts(path: Path, name: str) -> None:
    """Unpack the parts of a workbook once, within the limits, and look through the sheet.

    The library unpacks them without a limit, and holds the rectangle between the first and the last
    value in memory.

    Raises:
        Refused: a part is damaged or a bomb, the sheet is too large, or a formula has no value.
    """
    packed, size = path.stat().st_size, 0
    with open_archive(path) as archive:
        part = _part_of(archive, name, packed)
        for info in archive.infolist():
            if not info.filename.lower().endswith((".xml", ".rels")):
                continue  # pictures and the like, which nobody opens
            looked = _Looked(name) if info.filename == part else None
            for piece in member_pieces(archive, info, packed):
                size += len(piece)
                if size > MAX_BYTES:
                    raise Refused(f"unpacks to more than {MAX_BYTES >> 30} GB; split it")
                if looked is not None:
                    looked.look(piece)


def _part_of(archive: zipfile.ZipFile, name: str, packed: int) -> str | None:
    """Return the part of a workbook that is a sheet, None where the index is not as usual."""
    index, relations = (
        _parsed(archive, member, packed)
        for member in ("xl/workbook.xml", "xl/_rels/workbook.xml.rels")
    )
    if index is None or relations is None:
        return None
    ids = {
        sheet.get("name"): sheet.get(_RELATION)
        for sheet in index.iter()
        if sheet.tag.endswith("}sheet")
    }
    targets = {relation.get("Id"): relation.get("Target") or "" for relation in relations.iter()}
    target = targets.get(ids.get(name), "")
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _parsed(archive: zipfile.ZipFile, member: str, packed: int) -> Any:
    """Return a small part of a workbook as XML, None where there is none."""
    if member not in archive.namelist():
        return None
    text = b""
    for piece in member_pieces(archive, archive.getinfo(member), packed):
        text += piece
        if len(text) > MAX_INDEX:
            raise Refused(f"has a {member} of more than {MAX_INDEX >> 20} MB; save it again")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, DefusedXmlException) as error:
        raise Refused(
            f"is damaged in {member} ({first_line(error)}); save it again in Excel or LibreOffice"
        ) from None


class _Looked:
    """A look through the text of a sheet, by pieces, for what its reader would not survive or tell.

    By regular expressions: a parser of XML in Python takes minutes for a million rows.
    """

    def __init__(self, name: str) -> None:
        self._name, self._before, self._width, self._height = name, b"", 0, 0
        # The size that a sheet states may count empty cells. Where it is small it is believed: who
        # states too little ends the reader by its limit of memory, which is told as well.
        self._large: bool | None = None

    def look(self, piece: bytes) -> None:
        """Look at the next piece.

        Raises:
            Refused: the sheet is too large, or holds a formula without its value.
        """
        text = self._before + piece
        if self._large is None:
            stated = _DIMENSION.search(text)
            self._large = stated is None or _area(stated[1], stated[2]) > MAX_CELLS
        if (b"<f" in text or b":f" in text) and (found := _UNSTORED.search(text)):
            where = re.search(rb'\br="([A-Z0-9]+)"', found[0])
            cell = where[1].decode() if where else "a cell"
            raise Refused(
                f"holds a formula without its value in {cell} of sheet {self._name!r}: open it in "
                "Excel or LibreOffice and save it, so that the values are stored"
            )
        if self._large:
            for column, row in _VALUE.findall(text):
                self._width = max(self._width, _number(column))
                self._height = max(self._height, int(row))
            if self._width * self._height > MAX_CELLS:
                raise Refused(
                    f"has values in {self._height} rows and {self._width} columns of sheet "
                    f"{self._name!r}; at most {MAX_CELLS} cells are read: remove what stands far "
                    "outside of the table, or save it as CSV or Parquet"
                )
        self._before = text[-_OVERLAP:]


def _area(column: bytes, row: bytes) -> int:
    return _number(column) * int(row)


def _number(column: bytes) -> int:
    """Return the number of a column: 1 of A, 27 of AA."""
    number = 0
    for letter in column:
        number = 26 * number + letter - ord("A") + 1
    return number


class _Rows:
    """The rows of a sheet as texts, each with its number in the sheet, from 1.

    In a column where any time has a clock all have one, as in a CSV: Excel does not tell a date
    from the midnight that begins it.
    """

    def __init__(self, sheet: CalamineSheet) -> None:
        self._sheet = sheet
        first, last = sheet.start or (0, 0), sheet.end or (0, 0)
        self._left, self.width = first[1], last[1] - first[1] + 1
        self._clock = [False] * self.width
        for row in sheet.iter_rows():
            for index, value in enumerate(row):
                if isinstance(value, datetime) and value.time() != time.min:
                    self._clock[index] = True
        # Of a merged cell: the column and the last row, by the first row.
        self._merged: dict[int, list[tuple[int, int]]] = {}
        for (top, left), (bottom, _) in sheet.merged_cell_ranges or ():
            if bottom > top and 0 <= left - self._left < self.width:
                self._merged.setdefault(top + 1, []).append((left - self._left, bottom + 1))

    def texts(self) -> Iterator[tuple[int, list[Cell]]]:
        """Yield all rows.

        Raises:
            Refused: a number has more digits than a double keeps.
        """
        known: dict[float, str] = {}  # texts of numbers that come again and again
        for number, row in enumerate(self._sheet.iter_rows(), 1):
            texts: list[Cell] = []
            for index, value in enumerate(row):
                text: Cell
                if type(value) is str:
                    text = value or None
                elif type(value) is not float:
                    text = self._text(value, index, number)
                elif (text := known.get(value)) is None:
                    text = self._text(value, index, number)
                    if text is not None and len(known) < KNOWN:
                        known[value] = text
                texts.append(text)
            yield number, texts

    def filled(self, rows: Iterable[tuple[int, list[Cell]]]) -> Iterator[list[Cell]]:
        """Yield rows with the values of merged cells in each row that they cover."""
        open_: dict[int, tuple[int, Cell]] = {}
        for number, row in rows:
            for index, last in self._merged.get(number, ()):
                open_[index] = (last, row[index])
            for index, (last, value) in list(open_.items()):
                if number > last:
                    del open_[index]
                elif row[index] is None:
                    row[index] = value
            yield row

    def _text(self, value: Any, index: int, number: int) -> Cell:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float | int):
            text = _plain(value)
            if text is None:
                raise Refused(
                    f"holds the number {value:.0f} in {_letters(self._left + index)}{number}, and "
                    "Excel keeps 15 digits of a number, so that ids become others: store it as "
                    "text, or the table as CSV or Parquet"
                )
            return text
        if isinstance(value, datetime):
            return _moment(value) if self._clock[index] else value.date().isoformat()
        if isinstance(value, date):
            return f"{value.isoformat()} 00:00:00" if self._clock[index] else value.isoformat()
        if isinstance(value, time):
            return value.isoformat()
        assert isinstance(value, timedelta)
        seconds = round(value.total_seconds())
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _plain(value: float) -> Cell:
    """Return a number as text, None where digits of a whole number are lost."""
    if value != int(value):
        return repr(value)
    if abs(value) < EXACT:
        return str(int(value))
    # 15 digits are what Excel shows and stores; with fewer the number is the one that was meant.
    digits = Decimal(repr(float(value)))
    if len(digits.normalize().as_tuple().digits) > 15:
        return None
    return f"{digits:f}" if abs(value) < 1e19 else repr(float(value))


def _moment(value: datetime) -> str:
    text = value.isoformat(sep=" ")
    return text.rstrip("0") if value.microsecond else text


def _letters(index: int) -> str:
    """Return the name of a column: A of 0, AA of 26."""
    name, index = "", index + 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


def _write(rows: _Rows, out: Path, dialect: Dialect) -> tuple[list[str], int]:
    """Write the rows of a sheet to an Arrow file; return the columns' names and their number."""
    given = (
        (number, row)
        for number, row in rows.texts()
        if number > dialect.skip and any(cell is not None for cell in row)
    )
    columns = [f"c{index}" for index in range(1, rows.width + 1)]
    if dialect.header:
        _, header = next(given, (0, []))
        if not header:
            return [], 0
        columns = names_of([cell or "" for cell in header])
    check_columns(columns)
    return columns, write_rows(rows.filled(given), out, len(columns))
