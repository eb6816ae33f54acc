"""The quarantine: rows that failed validation, as people see them and correct them.

The CSV is made for a spreadsheet and for the way back: a value that a spreadsheet could take for a
formula gets a `'` before it, and `read_corrections` takes that away again. A cell that is left as
it was keeps its value exactly.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.files import written_aside
from include.ingestion.columns import ARRIVED, FILE, MALFORMED, ROW, headers
from include.ingestion.redriven import read_redriven
from include.lake.sql import PARTITION, connect, quote
from include.pipeline.lakes import open_lake
from include.point_in_time.partitions import period
from include.records.records import Records
from include.validation.judgement import RULE

SHOWN = 200
BATCH = 10_000
PLACE = (PARTITION, "source", FILE, ROW)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")

Place = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A quarantined row: where it lies, the rule that it failed, and its values as text.

    `into` is the partition that it is redriven into.
    """

    partition: str
    source: str
    file: str
    row: int
    rule: str
    values: dict[str, str]
    into: str | None = None

    @property
    def place(self) -> Place:
        """What names the row."""
        return self.partition, self.source, self.file, self.row


def find_rows(
    settings: Settings,
    records: Records,
    use_case: UseCase,
    *,
    partition: str | None = None,
    source: str | None = None,
    rule: str | None = None,
    limit: int | None = None,
) -> list[QuarantinedRow]:
    """Return quarantined rows of one partition, source and rule, or of all, sorted by place.

    With a limit the rows are to be looked at, so their values are cut: a quarantine may hold more
    than fits into memory.

    Raises:
        ConfigError: the partition is no key of the use case, or it has no such source.
    """
    redriven = {
        (row.partition, row.source, row.file, row.row): row.into
        for row in read_redriven(records, use_case.name)
    }
    rows = list[QuarantinedRow]()
    with connect() as con:
        for name in _scanned(con, settings, use_case, partition, source):
            whole = (PARTITION, FILE, ROW, RULE, ARRIVED)
            columns = [row[0] for row in con.execute(f"DESCRIBE {quote(name)}").fetchall()]
            cut = [
                f"left({quote(c)}, {SHOWN}) AS {quote(c)}" if c not in whole else quote(c)
                for c in columns
            ]
            picked, first = ("*", "") if limit is None else (", ".join(cut), f" LIMIT {limit}")
            where = (
                f"WHERE $rule IS NULL OR {RULE} = $rule ORDER BY {PARTITION}, {FILE}, {ROW}{first}"
            )
            for batch in con.sql(
                f"SELECT {picked} FROM {quote(name)} {where}", params={"rule": rule}
            ).to_arrow_reader(BATCH):
                for each in batch.to_pylist():
                    place = (each.pop(PARTITION), name, each.pop(FILE), each.pop(ROW))
                    failed, _ = each.pop(RULE), each.pop(ARRIVED, None)
                    values = {column: value for column, value in each.items() if value is not None}
                    rows.append(QuarantinedRow(*place, failed, values, redriven.get(place)))
    return sorted(rows, key=lambda row: row.place)[:limit]


def count_rules(
    settings: Settings,
    use_case: UseCase,
    *,
    partition: str | None = None,
    source: str | None = None,
) -> dict[str, int]:
    """Return how many quarantined rows failed each rule."""
    counts = dict[str, int]()
    with connect() as con:
        for name in _scanned(con, settings, use_case, partition, source):
            for rule, count in con.execute(
                f"SELECT {RULE}, count(*) FROM {quote(name)} GROUP BY 1 ORDER BY 1"
            ).fetchall():
                counts[rule] = counts.get(rule, 0) + count
    return counts


def _scanned(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    use_case: UseCase,
    partition: str | None,
    source: str | None,
) -> list[str]:
    """Make a view of the quarantine of each source that has one; return their names."""
    if source is not None and source not in use_case.sources:
        raise ConfigError(
            f"{use_case.name} has no source {source!r}; its sources are "
            f"{', '.join(use_case.sources)}"
        )
    keys = None if partition is None else [period(use_case, partition).key]
    lake, names = open_lake(settings), list(use_case.sources) if source is None else [source]
    stored = [
        name for name in names if lake.schema(f"{use_case.name}/quarantine/{name}") is not None
    ]
    for name in stored:
        lake.scan(con, name, f"{use_case.name}/quarantine/{name}", keys=keys)
    return stored


def as_table(
    rows: list[QuarantinedRow], limit: int
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the headings and lines of a table of the first rows, for a terminal."""
    lines = [
        (
            *row.place,
            row.rule,
            row.into or "",
            ", ".join(f"{name}={value!r}" for name, value in row.values.items())[:SHOWN],
        )
        for row in rows[:limit]
    ]
    return ("partition", "source", "file", "row", "rule", "redriven into", "values"), lines


def export_csv(rows: list[QuarantinedRow], use_case: UseCase, path: Path) -> int:
    """Write the rows that are not redriven yet as a CSV to correct; return how many.

    Raises:
        ConfigError: the file cannot be written.
    """
    waiting = [row for row in rows if row.into is None]
    names = _columns(use_case, {row.source for row in waiting})
    try:
        with (
            written_aside(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            out = csv.writer(file)
            out.writerow([*PLACE, RULE, *(_heading(name) for name in names)])
            for row in waiting:
                cells = [*row.place, row.rule, *(row.values.get(name, "") for name in names)]
                out.writerow([_guarded(str(cell)) for cell in cells])
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); name another file"
        ) from None
    return len(waiting)


def read_corrections(
    path: Path, rows: Mapping[Place, QuarantinedRow], use_case: UseCase
) -> dict[Place, dict[str, str]]:
    """Return the values that a corrected CSV gives to the quarantined rows which it names.

    Raises:
        ConfigError: the file is no CSV of this quarantine; names the line.
    """
    values_by_place: dict[Place, dict[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in PLACE if name not in (reader.fieldnames or [])]
            if missing:
                remedy = f"begin with `evergreen quarantine list {use_case.name} --csv FILE`"
                raise ConfigError(f"{path}: the columns {missing} are missing; {remedy}")
            for line in reader:
                place = _place(line)
                if place is None or place not in rows:
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: no quarantined row "
                        f"{_describe_place(line)}; leave it out"
                    )
                if place in values_by_place:
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: row {_describe_place(line)} stands "
                        "there twice; keep one"
                    )
                own = _columns(use_case, {place[1]})
                # Others too: what a person writes into a column that is not declared is refused.
                wanted = [
                    *own,
                    *(name for name in line if name not in (*PLACE, RULE, *map(_heading, own))),
                ]
                values_by_place[place] = _corrected_values(
                    line, rows[place], set(wanted), f"{path}, line {reader.line_num}", use_case
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path}: cannot be read as CSV in UTF-8 ({error}); export it again"
        ) from None
    return values_by_place


def _corrected_values(
    line: Mapping[str, Any], row: QuarantinedRow, wanted: set[str], where: str, use_case: UseCase
) -> dict[str, str]:
    """Return the values of a row with the cells of its line that were changed.

    A cell that holds what was exported is left as it was, an empty one takes the value away.
    """
    if None in line:  # where csv.DictReader puts what has no heading
        raise ConfigError(
            f"{where}: it has more cells than the header; quote cells that hold a comma"
        )
    own, values = _columns(use_case, {row.source}), dict(row.values)
    for name in wanted:
        cell = line.get(_heading(name))
        if cell is None or cell == _guarded(row.values.get(name, "")):
            continue
        if name not in own:
            raise ConfigError(
                f"{where}: source {row.source} declares no column {name!r}; its columns are "
                f"{', '.join(own)}"
            )
        values.pop(name, None)
        if cell:
            values[name] = _plain(cell)
    return values


def _columns(use_case: UseCase, sources: set[str]) -> list[str]:
    """Return the declared columns of some sources, in their order."""
    return list(
        dict.fromkeys(
            name
            for source in use_case.sources
            if source in sources
            for name in correctable_columns(use_case, source)
        )
    )


def correctable_columns(use_case: UseCase, source: str) -> list[str]:
    """Return the columns of a source by which its rows are corrected."""
    return [name for name in headers(use_case.sources[source]).values() if name != MALFORMED]


def _heading(name: str) -> str:
    """Return the heading of a source's column, told apart from those that say where a row lies."""
    return f"column {name}" if name in (*PLACE, RULE) else name


def _place(line: Mapping[str, Any]) -> Place | None:
    """Return the place that a line names, or None where its row is no number."""
    number = str(line[ROW] or "")
    partition, source, file = (_plain(str(line[name] or "")) for name in PLACE[:3])
    return (
        (partition, source, file, int(number)) if number.isdecimal() and number.isascii() else None
    )


def _describe_place(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={line[name]}" for name in PLACE)


def _guarded(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula.

    Numbers stay as they are, also those grouped as telephones are.
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _plain(cell: str) -> str:
    """Return a cell as it was before `_guarded`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _is_number(text: str) -> bool:
    if re.fullmatch(r"[+-]?[0-9 .]+", text):
        return True
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
