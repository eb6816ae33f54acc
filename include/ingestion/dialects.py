"""Dialects of CSV: how a file is written, guessed for a draft or declared by its source.

Lines that no parser takes are rewritten. Runs in the child process that opens foreign files
(include/ingestion/file_worker.py).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")
SAMPLE = 1 << 20  # bytes that a dialect is guessed by
ROWS = 500  # lines of them that are cut into cells
MAX_TITLE = 20  # lines before the header that are looked through
NO_QUOTE = "none"  # the `quote` of a file whose values stand in no marks
_UNIT = "\x1f"  # stands for a separator of several characters, which Python's csv does not take
# A quote after a backslash that does not end its cell: where quotes are doubled, a backslash may
# only stand before the end.
BACKSLASHED = re.compile(r'\\"(?=[^",;\t|\r\n])')
# A number with a currency, groups, a decimal comma or a percent sign, or eight and more signs of
# dates and times.
_NUMBER = re.compile(r"[+-]?[$€£]?[0-9][0-9.,' ]*%?|[+-]?[.,][0-9]+|[0-9:./TZ +-]{8,}")
# What stands for no value where a header would have a word: `n/a`, `\N`, `#N/A`, dots, dashes.
_MISSING = re.compile(
    r"[^a-z]*|n/?a|n\.a\.|nan|none|null|nil|missing|unknown|\\n|.*#n/a.*|.*\bnull\b.*",
    re.IGNORECASE,
)
# A name that only counts a column: X1, V2, Column3, Unnamed: 4, and the Y beside X1 to X23.
_COUNTED = re.compile(r"(x|y|v|c|f|col|column|var|field|feature|attr|unnamed:?) ?_?[0-9]*", re.I)
_ANY = "[,;\t|]"  # separators
_SEVERAL = re.compile(_ANY)  # a cell with one in it may be several


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV is written; `separator` None is found out by the header."""

    separator: str | None = None
    header: bool = True
    skip: int = 0
    escape: str = "double"
    encoding: str = "utf-8"
    quote: str = '"'


def cells(
    text: str, separator: str, *, escape: str = "double", quote: str = '"', limit: int = 1
) -> list[list[str]]:
    """Return the cells of the first lines of a text; lines without any are left out."""
    if len(separator) > 1:
        text, separator = text.replace(separator, _UNIT), _UNIT
    escaped = "\\" if escape == "backslash" else None
    lines = io.StringIO(text, newline="")
    reader = (
        csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
        if quote == NO_QUOTE
        else csv.reader(
            lines,
            delimiter=separator,
            quotechar=quote,
            escapechar=escaped,
            doublequote=escaped is None,
        )
    )
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == limit:
                break
    except csv.Error:  # a NUL or an endless cell: the parser that reads the file says where
        pass
    return rows


def is_number(text: str) -> bool:
    """Tell whether a value is written as a number, a date or a time."""
    return bool(_NUMBER.fullmatch(text.strip()))


def names_of(row: Sequence[str]) -> list[str]:
    """Return a header's names; a column without one is called as pandas calls it."""
    return [name.strip() or f"Unnamed: {index}" for index, name in enumerate(row)]


def guess_dialect(path: Path, encoding: str) -> Dialect:
    """Return the dialect of a text file in UTF-8, by its first lines.

    Each separator is tried; the best gives most lines one width, then cells of one value each, then
    many columns. `encoding` is what the text was read from.
    """
    with path.open("rb") as file:
        start = file.read(SAMPLE)
    text = start.decode("utf-8", "ignore").replace("\r\n", "\n").replace("\r", "\n")
    if len(start) == SAMPLE:
        text = text[: text.rfind("\n") + 1] or text
    guess = _guess(text, encoding, _quote(text, _ANY))
    if guess.quote == "'" and _quote(text, re.escape(guess.separator or _ANY)) != "'":
        # They stand within the cells, as in a list of texts that another separator parts.
        guess = _guess(text, encoding, '"')
    if '"' in text and _marks_nothing(text, guess):
        guess = _guess(text, encoding, NO_QUOTE)
    return guess


def _marks_nothing(text: str, guess: Dialect) -> bool:
    """Tell whether quotes are letters: read as marks they put lines of the table into one value.

    Without marks, each line has as many values as the others, and a column has numbers alone.
    """
    lines = [line for line in text.split("\n")[guess.skip :] if line.strip()]
    for separator in SEPARATORS:
        if len({line.count(separator) for line in lines}) > 1 or separator not in lines[0]:
            continue
        read = cells("\n".join(lines), separator, escape=guess.escape, limit=len(lines))
        if len(read) < len(lines):
            below = zip(*(line.split(separator) for line in lines[1:]), strict=True)
            return any(all(map(is_number, column)) for column in below)
    return False


def _guess(text: str, encoding: str, quote: str) -> Dialect:
    """Return the dialect of a text whose values stand between some marks."""
    escape = "backslash" if quote != NO_QUOTE and BACKSLASHED.search(text) else "double"
    best: tuple[tuple[bool, int, int], Dialect] = (
        (False, -1, 0),
        Dialect(",", escape=escape, encoding=encoding, quote=quote),
    )
    for separator in (*SEPARATORS, ", ", " "):
        sample = _without_runs(text) if separator == " " else text
        rows = cells(sample, separator, escape=escape, quote=quote, limit=ROWS)
        widths = [len(row) for row in rows]
        usual = max(
            sorted(set(widths[MAX_TITLE:] or widths[1:] or widths)), key=widths.count, default=0
        )
        # Lines before the first of the usual width are a title, if they are few and narrower.
        first = next((index for index, width in enumerate(widths) if width == usual), 0)
        if usual < 2 or first > MAX_TITLE or any(width >= usual for width in widths[:first]):
            continue
        if (
            separator == " "
            and best[1].separator == "\t"
            and best[0][0]
            and usual <= 2 * best[0][2]
        ):
            continue  # blanks within the values that tabs part, as of `2025-01-01 12:00:00`
        table = rows[first:]
        whole = [row for row in table if len(row) == usual]
        steady = len(whole) >= 0.9 * len(table) and (separator != " " or len(whole) == len(table))
        atoms = sum(_atomic(cell) for row in whole for cell in row) / (usual * len(whole))
        # Words of a text are many columns: blanks separate where no cell is several values.
        rank = (steady, int(20 * atoms) if separator == " " else round(20 * atoms), usual)
        if separator == ", " and not re.search(', "', sample):
            continue  # the comma alone says the same: blanks around a value are left out
        if rank > best[0]:
            if first and _ends_by_separator(rows[first - 1], whole):
                first, whole = first - 1, [[*rows[first - 1], ""], *whole]
            if _names_follow(whole):
                first, whole = first + 1, whole[1:]
            skip = _lines_before(text, rows[first], separator, best[1]) if first else 0
            header = _is_header(whole)
            best = (
                rank,
                replace(best[1], separator=separator, header=header, skip=skip),
            )
    if best[0][1] < 0:  # one column
        return replace(best[1], header=_is_header(cells(text, ",", quote=quote, limit=ROWS)))
    return best[1]


def _ends_by_separator(above: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether a separator ends each row, and not the line of names above them."""
    return len(above) + 1 == len(rows[0]) and not any(row[-1].strip() for row in rows)


def _quote(text: str, separator: str) -> str:
    """Return the mark that stands around values: ' where nearly every line has values in it.

    A value that merely begins with an apostrophe seldom ends with one. `separator` is an
    expression.
    """
    lines = 1 + text.rstrip("\n").count("\n")
    marked = {}
    for mark in "\"'":
        # From a separator or the line's beginning to a separator or its end.
        value = re.compile(
            rf"(?:^|{separator}) ?{mark}(?:[^{mark}]|{mark}{mark})*{mark}(?:$|{separator})"
        )
        marked[mark] = sum(bool(value.search(line)) for line in text.split("\n"))
    return "'" if marked["'"] >= max(2, 0.9 * lines) and marked["'"] > marked['"'] else '"'


def guess_sheet(rows: Sequence[Sequence[str]]) -> tuple[int, bool]:
    """Return how many rows of a sheet stand before its table, and whether that has a header.

    Rows before it are a title, if they are few and have less than half of the usual cells.
    """
    usual = max((sum(map(bool, row)) for row in rows[MAX_TITLE:] or rows[1:] or rows), default=0)
    first = next((index for index, row in enumerate(rows) if 2 * sum(map(bool, row)) > usual), 0)
    first = first if first <= MAX_TITLE else 0
    below = [row for row in rows[first:] if any(row)]
    if _names_follow(below):
        first, below = first + 1, below[1:]
    skip = first if any(map(any, rows[:first])) else 0  # empty rows are left out in any case
    return skip, _is_header(below)


def _names_follow(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first row only counts the columns (X1, X2, ...) and the second names them.

    A second row of units is no header: names that say something stand above it.
    """
    if len(rows) < 3:
        return False
    counted = sum(not cell.strip() or bool(_COUNTED.fullmatch(cell.strip())) for cell in rows[0])
    return counted >= 0.8 * len(rows[0]) and _is_header(rows) and _words_over_numbers(rows[1:])


def _words_over_numbers(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether a row is a word over each column of numbers."""
    of_numbers = words = 0
    for index, cell in enumerate(rows[0]):
        filled = [value for row in rows[1:] if (value := row[index].strip())]
        if filled and sum(bool(_NUMBER.fullmatch(value)) for value in filled) >= 0.8 * len(filled):
            of_numbers += 1
            words += bool(re.search("[A-Za-z]", cell)) and not _MISSING.fullmatch(cell.strip())
    return of_numbers > 0 and words == of_numbers


def _atomic(cell: str) -> bool:
    """Tell whether a cell looks like one value: a number, or a text without separators."""
    return not _SEVERAL.search(cell) or bool(_NUMBER.fullmatch(cell.strip()))


def _lines_before(text: str, row: Sequence[str], separator: str, dialect: Dialect) -> int:
    """Return how many lines stand before a row."""
    for number, line in enumerate(text.split("\n", MAX_TITLE + 2)):
        shown = _without_runs(line) if separator == " " else line
        found = cells(shown, separator, escape=dialect.escape, quote=dialect.quote)
        if shown and found[:1] == [list(row)]:
            return number
    return 0


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first row names the columns.

    It does where it is a word over a column of numbers or dates. Where it fits into such columns,
    or repeats a name, or most of its words come again below, it is a row.
    """
    if len(rows) < 2:
        return True
    first = [cell.strip() for cell in rows[0]]
    # A header that stands again between the rows, where files were put together, says nothing.
    below = [row for row in rows[1:] if [cell.strip() for cell in row] != first]
    if not below:
        return True
    as_value = again = 0
    for index, cell in enumerate(first):
        values = [row[index].strip() for row in below]
        filled = [value for value in values if value]
        numbers = sum(bool(_NUMBER.fullmatch(value)) for value in filled)
        if filled and numbers >= 0.8 * len(filled):
            if (
                cell
                and not _NUMBER.fullmatch(cell)
                and not _MISSING.fullmatch(cell)
                and cell not in filled
            ):
                return True
            as_value += bool(cell)
        again += bool(cell) and cell in filled
    if _counts_up([cell for cell in first if _NUMBER.fullmatch(cell)]):
        return True
    names = [cell for cell in first if cell]
    twice = len({cell.lower() for cell in names}) < len(names)
    return not (as_value or twice or again > len(first) / 2)


def _counts_up(numbers: Sequence[str]) -> bool:
    """Tell whether numbers name columns that count on: years, or three and more of any kind."""
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return False
    values = [int(number) for number in numbers]
    counts = values == list(range(values[0], values[0] + len(values)))
    return counts and (len(values) > 2 or 1900 <= values[0] <= 2100)


def _without_runs(text: str) -> str:
    """Return a text whose runs of blanks and tabs are one blank, and none at the ends of lines."""
    return re.sub("[ \t]+", " ", re.sub("(?m)^[ \t]+|[ \t]+$", "", text))


def mixed_ends(crlf: int, lf: int, cr: int) -> bool:
    """Tell whether lines end in more than one way, by the counts of each mark.

    A CRLF counts in all three.
    """
    return lf > 0 and (0 < crlf < lf or cr > crlf)


def tidy_lines(path: Path, out: Path, dialect: Dialect, *, mixed: bool) -> Path:
    """Write a text file in the one form that the parser takes, and return its path.

    The lines to skip are left out, lines end in one way (`mixed`: they did in several), and blanks
    that separate are one blank each. What stands in quotes is left as it is.
    """
    blanks, inside = dialect.separator == " ", False
    quote = b"" if dialect.quote == NO_QUOTE else dialect.quote.encode()
    marks = rb"\\.|" + quote if dialect.escape == "backslash" else quote
    escaped = re.compile(marks if quote else rb"(?!)")
    with path.open("rb") as file, out.open("wb") as to:
        lines = (
            iter(file)
            if not _only_cr(path)
            else iter(io.BytesIO(path.read_bytes().replace(b"\r", b"\n")))
        )
        for number, line in enumerate(lines):
            if number < dialect.skip:
                continue
            parts, outside = [], not inside
            at = 0
            for mark in escaped.finditer(line):
                if mark[0] == quote:
                    parts.append((line[at : mark.start()], not inside))
                    inside, at = not inside, mark.end()
            parts.append((line[at:], not inside))
            shown = [
                _bare(text, mixed=mixed, blanks=blanks) if bare else text for text, bare in parts
            ]
            whole = quote.join(shown)
            if blanks and outside:
                whole = whole.lstrip(b" ")
            to.write(whole if inside else whole.rstrip(b"\r\n" + (b" " if blanks else b"")) + b"\n")
    return out


def _bare(text: bytes, *, mixed: bool, blanks: bool) -> bytes:
    """Return a piece outside quotes with one kind of line end and without runs of blanks."""
    if mixed:
        text = re.sub(rb"\r+(?!\n)|\r+\n", b"\n", text)
    return re.sub(rb"[ \t]+", b" ", text) if blanks else text


def _only_cr(path: Path) -> bool:
    """Tell whether lines end by CR alone, as on old Macs; seen by the beginning of the file."""
    with path.open("rb") as file:
        start = file.read(SAMPLE)
    return b"\r" in start and b"\n" not in start
