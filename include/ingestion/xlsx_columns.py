"""Excel workbooks as text columns; part of the child process that opens foreign files.

A cell becomes what a CSV would hold: a whole number without a point, dates and times in ISO, truth
values as true and false, a formula as the value that was stored with it, whatever the cell's format
shows. A cell of an error, such as #N/A, holds no value.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from include.ingestion.decompression import Refused, first_line
from include.ingestion.dialects import MAX_TITLE, Dialect, guess_sheet, names_of
from include.ingestion.dialects import ROWS as GUESSED
from include.ingestion.text_columns import check_columns, write_rows
from include.ingestion.xlsx_parts import check_parts

KNOWN = 100_000  # numbers
EXACT = 1 << 53  # whole numbers from here on are not all doubles, and a cell's number is a double
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
    covers, and in a header for each column.

    Raises:
        Refused: it is damaged, hostile or too large, has no such sheet, or holds what a double or a
            reader without Excel cannot tell.
    """
    try:
        with CalamineWorkbook.from_path(path) as book:
            name, others = _choose(book, wanted)
            check_parts(path, name)
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
        first = [[cell or "" for cell in row] for _, row in islice(rows.texts(dialect), GUESSED)]
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
        # Of a merged cell: the column and the last row, by the first row; of one that is wider than
        # a column, and one row high, the first and the last column.
        self._merged: dict[int, list[tuple[int, int]]] = {}
        self._wide: dict[int, list[tuple[int, int]]] = {}
        for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
            if bottom > top and 0 <= left - self._left < self.width:
                self._merged.setdefault(top + 1, []).append((left - self._left, bottom + 1))
            elif right > left and 0 <= left - self._left <= right - self._left < self.width:
                self._wide.setdefault(top + 1, []).append((left - self._left, right - self._left))

    def texts(self, dialect: Dialect) -> Iterator[tuple[int, list[Cell]]]:
        """Yield all rows; two that are the header together are its first one.

        Raises:
            Refused: a number has more digits than a double keeps.
        """
        rows = self._texts()
        first = list(islice(rows, MAX_TITLE + 2))
        if dialect.header:
            self._join_header([row for row in first if row[0] > dialect.skip])
        yield from first
        yield from rows

    def _join_header(self, rows: list[tuple[int, list[Cell]]]) -> None:
        """Make one row of a header of two, where groups of columns stand above their names.

        It is one where a cell reaches over several columns, each with a name in the row below, and
        that row has no more than these names: the other columns have theirs in the first.
        """
        places = (place for place, (_, row) in enumerate(rows) if sum(map(bool, row)) > 1)
        place = next(places, len(rows))
        if place + 1 >= len(rows):
            return
        (number, groups), (_, names) = rows[place : place + 2]
        above: dict[int, Cell] = {}
        for left, right in self._wide.get(number, ()):
            above |= dict.fromkeys(range(left, right + 1), groups[left])
        filled = {index for index, name in enumerate(names) if name is not None}
        alone = any(group is not None for index, group in enumerate(groups) if index not in above)
        if above and alone and filled == set(above):
            for index, group in above.items():
                groups[index] = " ".join(part for part in (group, names[index]) if part)
            names[:] = [None] * len(names)

    def _texts(self) -> Iterator[tuple[int, list[Cell]]]:
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
        for number, row in rows.texts(dialect)
        if number > dialect.skip and any(cell is not None for cell in row)
    )
    columns = [f"c{index}" for index in range(1, rows.width + 1)]
    header: list[Cell] = []
    if dialect.header:
        _, header = next(given, (0, []))
        if not header:
            return [], 0
        columns = names_of([cell or "" for cell in header])
    check_columns(columns)
    # A row that repeats the header, as where pages were put together, has a number and is no row.
    filled = (None if row == header else row for row in rows.filled(given))
    return columns, write_rows(filled, out, len(columns))
