"""ARFF files as text columns; part of the child process that opens foreign files.

Values stay the texts that they are, whatever type the header gives them: numbers keep their digits,
dates the form in which they are written.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from include.ingestion.decompression import Refused, first_line
from include.ingestion.text_columns import MAX_LINE, check_columns, write_rows

_ATTRIBUTE = re.compile(
    r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s{},%'"]+)\s*(\S.*)""",
    re.IGNORECASE | re.DOTALL,
)


def convert_arff(path: Path, out: Path) -> tuple[list[str], int]:
    """Turn an ARFF file in UTF-8 into text columns; return their names and the number of rows.

    Raises:
        Refused: it is none, sparse or relational, or a line of it cannot be read; the message says
            which.
    """
    # The library that is made for ARFF, liac-arff, is published as source alone and rests since
    # 2020; this copy of it is kept by scikit-learn, which reads OpenML's files by it.
    from sklearn.externals import _arff as liac

    with path.open("rb") as file:
        lines = _Lines(file)
        try:
            rows = liac.load(iter(lines), return_type=liac.DENSE_GEN)["data"]
            check_columns(lines.columns)
            return lines.columns, write_rows(rows, out, len(lines.columns))
        except (liac.ArffException, csv.Error, ValueError) as error:
            raise Refused(lines.refusal(error)) from None


class _Lines:
    """The lines of an ARFF file as liac-arff takes them: every attribute is a text.

    It would make doubles of numbers, knows no dates, and takes blanks between words, no tabs.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._number, self._line = file, 0, ""
        self._in_data = False
        self.columns: list[str] = []

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE + 1):
            self._number += 1
            if len(line) > MAX_LINE:
                raise Refused(f"line {self._number} is longer than {MAX_LINE >> 20} MB")
            self._line = line.decode().strip()
            yield self._data(self._line) if self._in_data else self._header(self._line)

    def _header(self, line: str) -> str:
        word = line[:10].lower()
        if word.startswith("@data"):
            self._in_data = True
        elif word.startswith("@relation"):
            return "@RELATION r"  # its name says nothing of the rows
        elif word.startswith("@attribute"):
            match = _ATTRIBUTE.fullmatch(line)
            if match is None:
                raise Refused(
                    f"line {self._number} is no attribute with name and type: {line[:200]!r}"
                )
            if match[2].lower().startswith("relational"):
                raise Refused(
                    f"line {self._number}: an attribute that is relational has more than one value "
                    "a row; write flat attributes"
                )
            name = match[1]
            if name[0] in "'\"":
                name = re.sub(r"\\(.)", r"\1", name[1:-1])
            self.columns.append(name.strip() or f"Unnamed: {len(self.columns)}")
            return f"@ATTRIBUTE a{len(self.columns)} STRING"
        return line

    def _data(self, line: str) -> str:
        if line.startswith("{"):
            raise Refused(
                f"is sparse ARFF (line {self._number}); write every value of a row: in Weka by the "
                "filter SparseToNonSparse, or save it as CSV"
            )
        return line

    def refusal(self, error: Exception) -> str:
        """Return why the line that was read last cannot be taken."""
        if not self._in_data:
            return (
                f"is no ARFF file: line {self._number} is {self._line[:200]!r}; it begins with "
                "@relation, @attribute lines, and @data"
            )
        return (
            f"line {self._number} is no row of its {len(self.columns)} attributes: "
            f"{self._line[:200]!r}; mend it, or save the table as CSV ({first_line(error)[:100]})"
        )
