"""The parts of an Excel workbook, looked through before a library unpacks them without a limit."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from include.ingestion.archives import member_pieces, open_archive
from include.ingestion.decompression import MAX_BYTES, Refused, first_line

MAX_CELLS = 60_000_000  # of the rectangle that holds all values: the library holds it in memory
MAX_INDEX = 16 << 20  # bytes of a part that lists the sheets
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
# A formula, and no value after it; texts may be empty. `x:` is a prefix that some writers give.
_UNSTORED = re.compile(
    rb"<(?:\w+:)?c\b(?![^>]*\bt=\"str\")[^>]*>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)"
    rb"\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>|</(?:\w+:)?c>)"
)
_VALUE = re.compile(rb"<(?:\w+:)?c\b[^>]*\br=\"([A-Z]{1,3})([0-9]{1,7})\"[^>/]*>\s*<")
_DIMENSION = re.compile(rb"<(?:\w+:)?dimension\b[^>]*\bref=\"(?:[A-Z0-9]+:)?([A-Z]+)([0-9]+)\"")
_OVERLAP = 4_096  # bytes: longer than what the expressions match of all but absurd cells


def check_parts(path: Path, name: str) -> None:
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
