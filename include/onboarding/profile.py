"""Facts of a table in a file: what its columns hold and how they relate, as a contract reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from include.config.use_case_columns import ColumnType
from include.config.use_case_sources import Column, Source
from include.errors import SourceError
from include.ingestion.columns import MALFORMED
from include.ingestion.times import NEWEST, OLDEST
from include.ingestion.values import plain, trimmed_text, typed
from include.onboarding.column_texts import SOURCE
from include.onboarding.table_files import TableFiles, closing_rows, read_table
from include.onboarding.value_formats import guess_column
from include.onboarding.worst_partition import Worst, find_worst

if TYPE_CHECKING:
    import pyarrow as pa

    from include.onboarding.date_parts import Expression
    from include.onboarding.evidence import Evidence
    from include.onboarding.stray_times import Strays

MAX_COLUMNS = 500  # each is counted by itself, so that more would take minutes


@dataclass(frozen=True, slots=True)
class Profile:
    """One column: its header in the file, the contract that its values fit, and counts.

    `misfits` are the values that this contract would send to quarantine, `examples` up to three of
    them; `nulls` the cells that mean no value, `codes` numbers that may mean none too. `made` says
    of what a column is made that the file does not hold.
    """

    header: str
    column: Column
    rows: int
    nulls: int
    distinct: int
    misfits: int
    examples: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    made: Expression | Literal["digest", "snapshot", "joined", ""] = ""

    @property
    def type(self) -> str:
        """The type that its values fit."""
        return self.column.type

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.nulls == 0 and self.distinct == self.rows


class Delivered(NamedTuple):
    """What was read of a table that is no file: format, what its reader says of it, rows as texts.

    The rows have the columns c0, c1, ... and `row`; lines that could not be split are among them.
    `source` are the lines of a YAML that say where it is, for what is no file.
    """

    format: str
    answer: dict[str, Any]
    rows: pa.Table
    source: tuple[str, ...] = ()


class Table:
    """A person's table as a DuckDB table `given`; its values are texts of what a contract reads.

    A cell is NULL where it means no value, and where a time is none; other misfits stay as they
    are. Foreign values never become SQL. `files` says what of a file or a folder was read.
    """

    def __init__(
        self,
        path: Path,
        delivered: Delivered | None = None,
        *,
        sheet: str | None = None,
        member: str | None = None,
    ) -> None:
        from include.lake.sql import connect, quote

        self.path = path if delivered else path.resolve()
        self.files: TableFiles | None = None
        if delivered is None:
            self.files = read_table(self.path, sheet=sheet, member=member)
            answer, rows = self.files.answer, self.files.rows
            delivered = Delivered(str(answer["kind"]), answer, rows)
        self.format, answer, rows = delivered.format, delivered.answer, delivered.rows
        self.source = delivered.source
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
        none = [f"{MALFORMED} IS NULL"] if MALFORMED in rows.column_names else []
        # Of totals and notes nothing is guessed: validation sets them aside by what is.
        totals = closing_rows(rows, len(headers))
        if totals:
            none.append(f"row NOT IN ({', '.join(map(str, totals))})")
        self._where = f" WHERE {' AND '.join(none)}" if none else ""
        picked = ", ".join(
            f"{quote(f'h_{index}')} AS {quote(header)}" for index, header in enumerate(headers)
        )
        self._con.execute(f"CREATE TEMP VIEW raw AS SELECT {picked} FROM delivered{self._where}")
        self.rows = int(self.scalar("SELECT count(*) FROM raw"))
        self.totals = len(totals)
        self.broken = len(rows) - self.rows - self.totals  # lines that could not be split
        # Lines that repeat the header have numbers, and are no rows.
        last = self._con.execute("SELECT max(row) FROM delivered").fetchall()[0][0]
        self.repeated = int(last or 0) - len(rows)
        if not self.rows:
            raise SourceError(
                f"{path}: no rows; a draft is guessed from values, give a file that has some"
            )
        self._headers = headers
        self._made: dict[tuple[str, str], Profile] = {}
        self.strays: dict[str, Strays] = {}  # by header, once they are left out of `given`
        self.evidence: dict[tuple[str, str], dict[str, Evidence]] = {}  # by label and its ones
        self.columns = [self._profile(header) for header in headers]
        shown = ", ".join(
            f"{_as_read(profile)} AS {quote(profile.header)}" for profile in self.columns
        )
        self._con.execute(f"CREATE TEMP TABLE given AS SELECT {shown} FROM raw")

    def worst(
        self,
        source: Source,
        cadence: str,
        entity: str | None = None,
        within: tuple[date, date] | None = None,
    ) -> Worst:
        """Judge rows by a source's contract, as validation will; return the worst partition.

        `within` are the first and the last partition that count.
        """
        con, broken = self._con, self.broken > 0
        return find_worst(con, self._headers, broken, source, cadence, entity, within)

    def scalar(self, sql: str, *values: object) -> Any:
        """Return the first value of a query over `given`."""
        rows = self.rows_of(sql, *values)
        return rows[0][0] if rows else None

    def add_computed(self, name: str, sql: str, made: Expression) -> Profile:
        """Add a date or time that is computed over the row's columns; return what it holds."""
        return self._add(name, f"CAST({sql} AS VARCHAR)", Column(type=made.kind), made)

    def add_row_id(self) -> Profile:
        """Add a column that is different on each row, as the digest of a row is."""
        number = "CAST(row_number() OVER () AS VARCHAR)"
        return self._add("row_id", number, Column(type="string"), "digest")

    def add_snapshot(self, day: date) -> Profile:
        """Add the day for which the whole table stands."""
        return self._add("snapshot", f"'{day.isoformat()}'", Column(type="date"), "snapshot")

    def add_joined(
        self,
        name: str,
        key: str,
        pairs: Sequence[tuple[str, str | None]],
        kind: ColumnType = "string",
    ) -> Profile:
        """Add a column of a type by pairs of another column's value and its own."""
        import pyarrow as pa

        keys, values = (pa.array([pair[place] for pair in pairs], pa.string()) for place in (0, 1))
        self._con.register("pairs", pa.table({"k": keys, "v": values}))
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE __pairs AS SELECT k, any_value(v) AS v "
            "FROM pairs GROUP BY k"
        ).fetchall()
        self._con.unregister("pairs")
        return self._add(
            name,
            f"(SELECT v FROM __pairs WHERE k = {text(key)})",
            Column(type=kind),
            "joined",
        )

    def _add(
        self,
        name: str,
        sql: str,
        column: Column,
        made: Expression | Literal["digest", "snapshot", "joined"],
    ) -> Profile:
        from include.lake.sql import quote

        if (name, sql) in self._made:  # the roles are guessed again after each answer
            return self._made[name, sql]
        taken = {row[0].lower() for row in self._con.execute("DESCRIBE given").fetchall()}
        header, number = name, 2
        while header.lower() in taken:
            header, number = f"{name}_{number}", number + 1
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE given AS SELECT *, {sql} AS {quote(header)} FROM given"
        )
        filled = int(self.scalar(f"SELECT count({quote(header)}) FROM given"))
        distinct = int(self.scalar(f"SELECT count(DISTINCT {quote(header)}) FROM given"))
        profile = Profile(header, column, self.rows, self.rows - filled, distinct, 0, made=made)
        self._made[name, sql] = profile
        return profile

    def rows_of(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query over `given`."""
        rows: list[tuple[Any, ...]] = self._con.execute(sql, list(values)).fetchall()
        return rows

    def samples(self, header: str, limit: int = 3) -> list[str]:
        """Return the most frequent values of a column, as text."""
        rows = self.rows_of(
            f"SELECT {text(header)} AS v FROM given WHERE v IS NOT NULL GROUP BY v "
            f"ORDER BY count(*) DESC, v LIMIT {limit}"
        )
        return [str(row[0]) for row in rows]

    def spelled(self, header: str, words: Sequence[str]) -> str | None:
        """Return how the file most often writes one of some lower-case words in a column."""
        from include.lake.sql import quote, text_literal

        if header not in self._headers:
            return None
        cell = plain(quote(f"h_{self._headers.index(header)}"))
        listed = ", ".join(map(text_literal, words))
        found = self._con.execute(
            f"SELECT {cell} AS v FROM delivered{self._where} GROUP BY v "
            f"HAVING lower(v) IN ({listed}) ORDER BY count(*) DESC, v LIMIT 1"
        ).fetchall()
        return str(found[0][0]) if found else None

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
            guess.codes,
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


def moment(header: str) -> str:
    """Return the expression of a column's value as a time."""
    return f"TRY_CAST({text(header)} AS TIMESTAMPTZ)"
