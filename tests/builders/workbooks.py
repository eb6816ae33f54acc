"""Excel workbooks for tests, written as Excel writes them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import xlsxwriter


def workbook(path: Path, *sheets: tuple[str, list[list[Any]]], from_1904: bool = False) -> Path:
    """Write sheets of rows; a date gets a date's format, a text that begins with = is a formula."""
    book = xlsxwriter.Workbook(str(path), {"date_1904": from_1904, "remove_timezone": True})
    day = book.add_format({"num_format": "dd.mm.yyyy"})
    moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    for name, rows in sheets:
        sheet = book.add_worksheet(name)
        for number, row in enumerate(rows):
            for index, value in enumerate(row):
                if isinstance(value, datetime):
                    sheet.write_datetime(number, index, value, moment)
                elif isinstance(value, date):
                    sheet.write_datetime(number, index, value, day)
                elif isinstance(value, tuple):  # a formula, and the value that is stored with it
                    sheet.write_formula(number, index, value[0], None, value[1])
                elif value is not None:
                    sheet.write(number, index, value)
    book.close()
    return path


def edited(path: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    """Write a workbook anew with one part changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[part] = change(parts[part])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path
