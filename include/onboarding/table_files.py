"""The files that a person brings: one table in a file, a folder of such files, an archive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import SourceError
from include.ingestion.columns import MALFORMED
from include.ingestion.file_reader import FileReader
from include.ingestion.formats import ENDINGS, ending_of, kind_of
from include.ingestion.remote_files import MAX_FILES, is_passed_over
from include.onboarding.yaml_text import quoted

if TYPE_CHECKING:
    import pyarrow as pa


_WITHOUT_ORDER = ("json", "jsonl")  # formats whose columns have none
LAST_ROWS = 3  # among which totals are looked for
LAST_NOTES = 20  # and as many of notes, at most
LEAST_WIDTH = 3  # columns from which a row of one cell is none
TOTAL = re.compile(
    r"(grand |sub|over)?-?(totals?|all|sum|summe|gesamt|insgesamt|gesamtsumme|average|mean|count)"
    r"( .{0,30})?:?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a folder that are one table: their paths, and the glob that names them there."""

    glob: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table as it was read: its rows as text, and what the reader says of the first file.

    `glob` names the files of a folder. Lines that could not be split into columns are among the
    rows, which are numbered over all files.
    """

    rows: pa.Table
    answer: dict[str, Any]
    glob: str | None = None

    def fields(self) -> Iterator[str]:
        """Yield the YAML of what was chosen in a workbook or an archive, and what else there is."""
        sheet, member = self.answer["sheet"], self.answer["member"]
        if sheet is not None and self.answer["sheets"]:
            yield (
                f"    sheet: {quoted(sheet)}  # read alone; others: "
                f"{_listed(self.answer['sheets'])}"
            )
        if member is not None and self.answer["members"]:
            yield (
                f"    member: {quoted(member)}  # read alone; others: "
                f"{_listed(self.answer['members'])}"
            )


def read_table(path: Path, *, sheet: str | None = None, member: str | None = None) -> TableFiles:
    """Read a file, or all files of a folder, as one table of texts.

    `sheet` and `member` say what to read of a workbook and of a zip archive.

    Raises:
        SourceError: there is no such file, its ending says no format, it is empty or cannot be
            read, or the files of the folder are no one table.
    """
    if path.is_dir():
        folder = files_in(path)
        rows, answer = _read(list(folder.files), sheet, member)
        return TableFiles(rows, answer, folder.glob)
    if kind_of(path.name) is None:
        raise SourceError(
            f"{path}: a draft is made from {ENDINGS}; convert the table, or write the YAML by hand"
        )
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; check the path")
    rows, answer = _read([path], sheet, member)
    return TableFiles(rows, answer)


def files_in(folder: Path) -> Folder:
    """Return the files of a folder that are one table, by their endings.

    Files that are no tables, and what writers leave beside, are passed over.

    Raises:
        SourceError: there is none, too many, or of several endings.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not is_passed_over(path.name) and kind_of(path.name) is not None
    ]
    if not found:
        raise SourceError(
            f"{folder}: holds no file of {ENDINGS}; name the folder in which the files lie"
        )
    # As they are spelled: a glob tells CSV from csv.
    endings = Counter(_spelled_ending(path.name) for path in found)
    if len(endings) > 1:
        counts = ", ".join(f"{count} .{ending}" for ending, count in endings.most_common(6))
        raise SourceError(
            f"{folder}: holds files of several endings ({counts}), and a source is of one; move "
            "the others, or name one file"
        )
    if len(found) > MAX_FILES:
        raise SourceError(f"{folder}: holds {len(found)} files; at most {MAX_FILES} are read")
    return Folder(f"*.{next(iter(endings))}", tuple(found))


def _spelled_ending(name: str) -> str:
    return name[len(name) - len(ending_of(name)) :]


def _read(
    paths: list[Path], sheet: str | None, member: str | None
) -> tuple[pa.Table, dict[str, Any]]:
    """Read files of one table; return their rows and what is said of the first that has columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[pa.Table] = []
    first: tuple[Path, dict[str, Any]] | None = None
    count = 0
    with FileReader() as reader:
        for path in paths:
            answer, rows = reader.read(
                path, path.name, kind_of(path.name) or "", [], sheet=sheet, member=member
            )
            if not answer["columns"]:
                continue
            first = first or (path, answer)
            if answer["kind"] in _WITHOUT_ORDER:
                rows = _in_order(rows, answer, first[1]["columns"])
            _check_alike(first, path, answer)
            if parts:
                place = rows.column_names.index("row")
                rows = rows.set_column(place, "row", pc.add(rows.column("row"), count))
            parts.append(rows)
            # Of a file without rows nothing is added: numbers have gaps where headers repeat.
            count = pc.max(rows.column("row")).as_py() or count
    if first is None:
        raise SourceError(
            f"{paths[0] if len(paths) == 1 else paths[0].parent}: is empty; a draft is guessed "
            "from values, give a file that has some"
        )
    return pa.concat_tables(parts, promote_options="default"), first[1]


def _in_order(rows: pa.Table, answer: dict[str, Any], names: list[str]) -> pa.Table:
    """Return the rows of a file with its columns in the order of these names, if it has the same.

    Names in an object of JSON have no order; what is said of the file follows.
    """
    import pyarrow as pa

    columns = answer["columns"]
    if columns == names or sorted(columns) != sorted(names):
        return rows
    places = [columns.index(name) for name in names]
    answer["columns"] = names
    picked = {f"c{place}": rows.column(f"c{was}") for place, was in enumerate(places)}
    rest = {name: rows.column(name) for name in rows.column_names[len(columns) :]}
    return pa.table(picked | rest)


def closing_rows(rows: pa.Table, width: int) -> list[int]:
    """Return the numbers of the last rows that are none: totals of those above, and notes.

    A total says so in its first cell. A note, or an empty row, has at most one cell where the rows
    above it have several. `rows` have `width` columns of a table first, and `row`.
    """
    last = rows.slice(max(0, len(rows) - 2 * LAST_NOTES)).to_pylist()
    # A line that could not be split has no cells, and is counted apart.
    cells = [
        [text for value in list(row.values())[:width] if (text := str(value or "").strip())]
        if row.get(MALFORMED) is None
        else ["", ""]
        for row in last
    ]
    end = len(last)
    while end and len(last) - end < LAST_NOTES and len(cells[end - 1]) <= 1:
        end -= 1
    if width < LEAST_WIDTH or not end or any(len(row) <= 1 for row in cells[:end]):
        end = len(last)  # rows of one cell are what this table has
    totals = [
        place
        for place in range(max(0, end - LAST_ROWS), end)
        if cells[place] and TOTAL.fullmatch(cells[place][0])
    ]
    return [int(last[place]["row"]) for place in (*totals, *range(end, len(last)))]


def _check_alike(first: tuple[Path, dict[str, Any]], path: Path, answer: dict[str, Any]) -> None:
    """Refuse a file that is not written as the first one: a source declares one way for all."""
    if answer["columns"] != first[1]["columns"]:
        ours, theirs = answer["columns"], first[1]["columns"]
        differ = [name for name in theirs if name not in ours] + [
            name for name in ours if name not in theirs
        ]
        what = f"differ in {differ[:5]}" if differ else "stand in another order"
        raise SourceError(
            f"{path}: its columns {what} from those of {first[0].name}; a folder is read as one "
            "table: mend the header, or move the file away"
        )
    if answer["dialect"] != first[1]["dialect"]:
        before, now = first[1]["dialect"], answer["dialect"]
        differ = [f"{name} {now[name]!r}" for name in now if now[name] != before[name]]
        raise SourceError(
            f"{path}: is written otherwise than {first[0].name} ({', '.join(differ)}); a source "
            "declares one way for all its files: write them alike, or move the file away"
        )


def _listed(names: list[str]) -> str:
    """Return names in a comment, as JSON: none of them can end it."""
    shown = ", ".join(quoted(name[:60]) for name in names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown
