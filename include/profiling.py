"""Facts of a table in a file (CSV or Parquet), by DuckDB: what its columns hold, how they relate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 500
FITS = 0.99  # a type is taken where this share of the values fits; the rest would go to quarantine
_TESTS = {
    "bool": "lower({t}) IN ('true', 'false', 't', 'f', 'yes', 'no', 'y', 'n')",
    "int64": r"regexp_full_match({t}, '[+-]?(0|[1-9][0-9]{{0,17}})')",
    "float64": r"(TRY_CAST({t} AS DOUBLE) IS NOT NULL AND NOT regexp_full_match({t}, '[+-]?0[0-9]+'))",
    "date": r"(regexp_full_match({t}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') AND TRY_CAST({t} AS DATE) IS NOT NULL)",
    "timestamp": r"(regexp_matches({t}, '^[0-9]{{4}}-') AND TRY_CAST({t} AS TIMESTAMPTZ) IS NOT NULL)",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One column: its header in the file, the type that its values fit, and counts."""

    header: str
    type: str
    rows: int
    nulls: int
    distinct: int
    misfits: int

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.nulls == 0 and self.distinct == self.rows


class Table:
    """A file as a DuckDB table of text, with a profile of each column; foreign values never become SQL."""

    def __init__(self, path: Path) -> None:
        from include.lake import connect

        self.path = path.resolve()
        self.format, given = _read(self.path)
        headers = given.column_names
        twice = sorted({header for header in headers if headers.count(header) > 1})
        if twice:
            raise SourceError(f"{path}: the header has {twice[0]!r} twice; give each column a name of its own")
        if len(headers) > MAX_COLUMNS:
            raise SourceError(f"{path}: {len(headers)} columns; a draft takes at most {MAX_COLUMNS}, select some into a new file")
        if len(given) == 0:
            raise SourceError(f"{path}: no rows; a draft is guessed from values, give a file that has some")
        self._con = connect()
        self._con.register("given", given)
        self._con.execute("SET enable_external_access = false")
        self.rows = len(given)
        self.columns = [self._profile(header) for header in headers]

    def scalar(self, sql: str, *values: object) -> Any:
        """Return the first value of a query over `given`."""
        row = self._con.execute(sql, list(values)).fetchone()
        return None if row is None else row[0]

    def distinct(self, header: str, limit: int = 3) -> list[str]:
        """Return the first distinct values of a column, as text."""
        rows = self._con.execute(f"SELECT DISTINCT {text(header)} AS v FROM given WHERE v IS NOT NULL ORDER BY v LIMIT {limit}")
        return [str(row[0]) for row in rows.fetchall()]

    def moments(self, header: str) -> tuple[datetime, datetime]:
        """Return the first and the last time in a column."""
        first, last = self._con.execute(f"SELECT min({moment(header)}), max({moment(header)}) FROM given").fetchone() or (
            None,
            None,
        )
        if first is None or last is None:
            raise SourceError(f"{self.path}: column {header!r} holds no time; name another with --time")
        return first, last

    def lag_days(self, later: str, earlier: str, quantile: float = 1.0) -> float:
        """Return a quantile of `later - earlier` (two expressions of times) in days."""
        value = self.scalar(
            f"SELECT quantile_cont(epoch_us({later}) - epoch_us({earlier}), {float(quantile)}) FROM given "
            f"WHERE {later} IS NOT NULL AND {earlier} IS NOT NULL"
        )
        return float(value or 0) / 86_400_000_000

    def _profile(self, header: str) -> Profile:
        shown = text(header)
        tests = ", ".join(f"count(*) FILTER ({test.format(t=shown)})" for test in _TESTS.values())
        row = self._con.execute(f"SELECT count({shown}), count(DISTINCT {shown}), {tests} FROM given").fetchone()
        assert row is not None
        filled, distinct, *fits = row
        kind, fit = "string", filled
        for name, count in zip(_TESTS, fits, strict=True):
            if filled and count >= FITS * filled:
                kind, fit = name, count
                break
        return Profile(header, kind, self.rows, self.rows - filled, distinct, filled - fit)


def text(header: str) -> str:
    """Return the expression of a column's value as text, where blank is no value."""
    from include.lake import quote

    return f"nullif(trim({quote(header)}), '')"


def moment(header: str) -> str:
    """Return the expression of a column's value as a time."""
    return f"TRY_CAST({text(header)} AS TIMESTAMPTZ)"


def _read(path: Path) -> tuple[str, pa.Table]:
    """Return the format of a file and its columns as text, read by the child process that opens foreign files."""
    from include.sources import MALFORMED, FileReader

    found = re.search(r"\.(csv|tsv|txt|parquet)(\.gz|\.zst)?$", path.name.lower())
    if found is None:
        raise SourceError(f"{path}: a draft is made from .csv or .parquet; convert the table, or write the YAML by hand")
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; check the path")
    kind = "parquet" if found[1] == "parquet" else "csv"
    with FileReader() as reader:
        answer, table = reader.read(path, path.name, kind, [])
    if not answer["columns"]:
        raise SourceError(f"{path}: is empty; a draft is guessed from values, give a file that has some")
    if MALFORMED in table.column_names:
        table = table.filter(table.column(MALFORMED).is_null())
    columns = [table.column(f"c{index}") for index in range(len(answer["columns"]))]
    return kind, _table(columns, list(answer["columns"]))


def _table(columns: list[pa.ChunkedArray], names: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.table(columns, names=names)
