"""Facts of a table in a file: what its columns hold and how they relate, as a contract reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.config.use_case_sources import Column, Source
from include.errors import SourceError
from include.ingestion.columns import MALFORMED
from include.ingestion.columns import headers as headers_of
from include.ingestion.times import NEWEST, OLDEST
from include.ingestion.values import moment as known
from include.ingestion.values import trimmed_text, typed
from include.onboarding.column_texts import SOURCE
from include.onboarding.table_files import read_table
from include.onboarding.value_formats import guess_column
from include.validation.contract import RULE, judged_query, mixed_zones_query

if TYPE_CHECKING:
    pass

MAX_COLUMNS = 500  # each is counted by itself, so that more would take minutes


@dataclass(frozen=True, slots=True)
class Profile:
    """One column: its header in the file, the contract that its values fit, and counts.

    `misfits` are the values that this contract would send to quarantine, `examples` up to three of
    them; `nulls` the cells that mean no value.
    """

    header: str
    column: Column
    rows: int
    nulls: int
    distinct: int
    misfits: int
    examples: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The type that its values fit."""
        return self.column.type

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.nulls == 0 and self.distinct == self.rows


@dataclass(frozen=True, slots=True)
class Worst:
    """The partition of a table with the greatest share of rows that go to quarantine."""

    share: float
    bad: int
    rows: int
    rules: tuple[tuple[str, int], ...]


class Table:
    """A person's table as a DuckDB table `given`; its values are texts of what a contract reads.

    A cell is NULL where it means no value, and where a time is none; other misfits stay as they
    are. Foreign values never become SQL.
    """

    def __init__(self, path: Path, *, sheet: str | None = None, member: str | None = None) -> None:
        from include.lake.sql import connect, quote

        self.path = path.resolve()
        self.files = read_table(self.path, sheet=sheet, member=member)
        answer, rows = self.files.answer, self.files.rows
        self.format: str = answer["kind"]
        self.dialect, self.nested = answer["dialect"] or {}, answer["nested"]
        headers = list(answer["columns"])
        if len(headers) > MAX_COLUMNS:
            raise SourceError(
                f"{path}: {len(headers)} columns; a draft takes at most {MAX_COLUMNS}, select "
                "some into a new file"
            )
        self._con = connect(alone=True)
        self._con.register(
            "delivered",
            rows.rename_columns([_raw_name(name, headers) for name in rows.column_names]),
        )
        self._con.execute("SET enable_external_access = false")
        self._where = "" if MALFORMED not in rows.column_names else f" WHERE {MALFORMED} IS NULL"
        picked = ", ".join(
            f"{quote(f'h_{index}')} AS {quote(header)}" for index, header in enumerate(headers)
        )
        self._con.execute(f"CREATE TEMP VIEW raw AS SELECT {picked} FROM delivered{self._where}")
        self.rows = int(self.scalar("SELECT count(*) FROM raw"))
        self.broken = len(rows) - self.rows  # lines that could not be split into columns
        if not self.rows:
            raise SourceError(
                f"{path}: no rows; a draft is guessed from values, give a file that has some"
            )
        self._headers = headers
        self.columns = [self._profile(header) for header in headers]
        shown = ", ".join(
            f"{_as_read(profile)} AS {quote(profile.header)}" for profile in self.columns
        )
        self._con.execute(f"CREATE TEMP TABLE given AS SELECT {shown} FROM raw")

    def worst(self, source: Source, cadence: str, entity: str | None = None) -> Worst:
        """Judge all rows by a source's contract, as validation will; return the worst partition."""
        from include.lake.sql import quote

        names = headers_of(source)
        index = {header: place for place, header in enumerate(self._headers)}
        picked = ", ".join(
            f"{quote(f'h_{index[header]}')} AS {quote(name)}" for header, name in names.items()
        )
        broken = f", {MALFORMED}" if self.broken else ""
        when = known(source.arrival if source.assumed_lag is None else source.event_time, source)
        named = f"SELECT {picked}{broken}, '' AS source_file, row AS source_row FROM delivered"
        # As ingestion does it: a row without a readable time takes that of the nearest earlier row,
        # else of the first later one.
        arrived = (
            "coalesce(last_value(__at IGNORE NULLS) OVER (ORDER BY source_row), first_value(__at "
            "IGNORE NULLS) OVER (ORDER BY source_row ROWS BETWEEN CURRENT ROW AND UNBOUNDED "
            "FOLLOWING), TIMESTAMPTZ '1970-01-01 00:00:00+00')"
        )
        times = (
            f"SELECT * EXCLUDE (__at), {arrived} AS arrived_at FROM (SELECT *, {when} AS __at "
            f"FROM ({named}))"
        )
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE __rows AS SELECT strftime(date_trunc('{cadence}', "
            f"arrived_at), '%Y-%m-%d') AS partition, * FROM ({times})"
        )
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE __periods AS SELECT DISTINCT partition, TIMESTAMPTZ "
            "'2262-04-11' AS __as_of FROM __rows"
        )
        present = {*names.values(), *([MALFORMED] if self.broken else [])}
        zones = mixed_zones_query(source, present, "__rows")
        mixed = self._con.execute(zones).fetchall() if zones else []
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE __judged AS "
            f"{judged_query(source, present, '__rows', mixed, entity=entity)}"
        )
        counts = self._con.execute(
            f"SELECT count({RULE}), count(*) FROM __judged GROUP BY partition ORDER BY "
            f"count({RULE}) / count(*) DESC, partition"
        ).fetchall()
        rules = self._con.execute(
            f"SELECT {RULE}, count(*) FROM __judged WHERE {RULE} IS NOT NULL GROUP BY ALL ORDER "
            "BY 2 DESC, 1 LIMIT 3"
        ).fetchall()
        bad, count = counts[0]
        return Worst(
            bad / count, bad, count, tuple((str(rule), int(number)) for rule, number in rules)
        )

    def scalar(self, sql: str, *values: object) -> Any:
        """Return the first value of a query over `given`."""
        row = self._con.execute(sql, list(values)).fetchone()
        return None if row is None else row[0]

    def distinct(self, header: str, limit: int = 3) -> list[str]:
        """Return the first distinct values of a column, as text."""
        rows = self._con.execute(
            f"SELECT DISTINCT {text(header)} AS v FROM given WHERE v IS NOT NULL ORDER BY v LIMIT "
            f"{limit}"
        )
        return [str(row[0]) for row in rows.fetchall()]

    def moments(self, header: str) -> tuple[datetime, datetime]:
        """Return the first and the last time in a column."""
        first, last = self._con.execute(
            f"SELECT min({moment(header)}), max({moment(header)}) FROM given"
        ).fetchone() or (
            None,
            None,
        )
        if first is None or last is None:
            raise SourceError(
                f"{self.path}: column {header!r} holds no time; name another with --time"
            )
        return first, last

    def lag_days(self, later: str, earlier: str, quantile: float = 1.0) -> float:
        """Return a quantile of `later - earlier` (two expressions of times) in days."""
        value = self.scalar(
            f"SELECT quantile_cont(epoch_us({later}) - epoch_us({earlier}), {float(quantile)}) "
            f"FROM given WHERE {later} IS NOT NULL AND {earlier} IS NOT NULL"
        )
        return float(value or 0) / 86_400_000_000

    def _profile(self, header: str) -> Profile:
        """Return what a column holds, by the contract that its values fit."""
        from include.lake.sql import quote

        trimmed = trimmed_text(quote(f"h_{self._headers.index(header)}"), None, SOURCE)
        # Of its own column alone: the view over all of them would be bound once a column.
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE seen AS SELECT {trimmed} AS t, count(*) AS n "
            f"FROM delivered{self._where} GROUP BY t HAVING t IS NOT NULL"
        )
        guess = guess_column(self._con, header)
        value = typed("c", guess.column, SOURCE)
        row = self._con.execute(
            f"SELECT coalesce(sum(n), 0), count(DISTINCT coalesce(CAST({value} AS VARCHAR), c)) "
            f"FROM (SELECT n, {trimmed_text('t', guess.column, SOURCE)} AS c FROM seen) "
            "WHERE c IS NOT NULL"
        ).fetchone()
        assert row is not None
        nulls = self.rows - int(row[0])
        return Profile(
            header,
            guess.column,
            self.rows,
            nulls,
            int(row[1]),
            guess.misfits,
            guess.examples,
            guess.notes,
        )


def _raw_name(name: str, headers: list[str]) -> str:
    """Return the name in `delivered` of a column that the file reader calls c0, c1, ...

    A header of the file cannot be the same.
    """
    return (
        f"h_{name[1:]}" if re.fullmatch("c[0-9]+", name) and int(name[1:]) < len(headers) else name
    )


def _as_read(profile: Profile) -> str:
    """Return the expression of a raw value as the text of what the contract reads."""
    from include.lake.sql import quote

    cell = trimmed_text(quote(profile.header), profile.column, SOURCE)
    if profile.type == "string":
        return cell
    value = typed(cell, profile.column, SOURCE)
    if profile.type in ("date", "timestamp"):
        low, high = (
            ("DATE '1900-01-01'", "DATE '2262-04-11'")
            if profile.type == "date"
            else (OLDEST, NEWEST)
        )
        return f"CASE WHEN {value} BETWEEN {low} AND {high} THEN CAST({value} AS VARCHAR) END"
    return f"coalesce(CAST({value} AS VARCHAR), {cell})"


def text(header: str) -> str:
    """Return the expression of a column's value as text, where blank is no value."""
    from include.lake.sql import quote

    return f"nullif(trim({quote(header)}), '')"


def name_others(columns: Iterable[Profile]) -> str:
    """Return the end of a note: which other columns there are, as JSON, safe in a comment."""
    names = [json.dumps(column.header[:60]) for column in columns][:4]
    return f"; others: {', '.join(names)}" if names else ""


def name_some(columns: Iterable[Profile]) -> str:
    """Return the headers of up to six columns, for a message."""
    return ", ".join(repr(column.header) for column in list(columns)[:6])


def moment(header: str) -> str:
    """Return the expression of a column's value as a time."""
    return f"TRY_CAST({text(header)} AS TIMESTAMPTZ)"
