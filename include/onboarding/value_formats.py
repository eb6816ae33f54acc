"""Guess the contract of a column from its texts: the type and the written form that its values fit,
by the contract's own rules.

A candidate is a `Column`; how many values fit it is counted by the expressions with which the
contract will judge them. What cannot be told apart (day from month, thousands from decimals) is not
guessed: the column stays text, and the note says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.config.use_case_sources import UNIX, Column, Source
from include.ingestion.values import typed
from include.lake.sql import text_literal
from include.validation.contract import column_checks

if TYPE_CHECKING:
    import duckdb

FITS = 0.99  # a type is taken where this share of the values fits; the rest would go to quarantine
SOURCE = Source(path="-", key=["x"], arrival="event + 0s", columns={"x": Column(type="string")})
"""Stands for the source that a draft writes: no zone, no tokens of its own."""
MAX_TOKENS = 2
SAMPLE = 2_000
_TOKENS = (
    *(
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "#na",
        "<na>",
        "nan",
        "-nan",
        "null",
        "(null)",
        "[null]",
        "none",
        "nil",
        "nat",
        "?",
        "??",
        ".",
    ),
    *(
        "..",
        "-",
        "--",
        "---",
        "*",
        "\\n",
        "missing",
        "unknown",
        "empty",
        "void",
        "undefined",
        "#value!",
        "#ref!",
        "#div/0!",
        "#num!",
    ),
    *(
        "#null!",
        "#name?",
        "tbd",
        "k.a.",
        "not available",
        "00.00.0000",
        "00/00/0000",
        "00000000",
        "0000-00-00",
    ),
    *("0000-00-00 00:00:00",),
)
_PLAIN_TOKENS = ("null", "(null)", "[null]", "\\n", "#n/a", "<na>", "n/a", "nan", "?", "#na")
"""Tokens that are no word of any language, and so no value of a text column either."""
_UNITS: tuple[str, ...] = (
    "$",
    "US$",
    "\u20ac",
    "\u00a3",
    "\u00a5",
    "\u20b9",
    "\u20a9",
    "\u20bd",
    "EUR",
    "USD",
    "GBP",
    "CHF",
)
_UNITS += (
    "JPY",
    "kr",
    "SEK",
    "NOK",
    "DKK",
    "PLN",
    "CZK",
    "INR",
    "CNY",
    "AUD",
    "CAD",
    "R$",
    "Rs",
    "BRL",
    "z\u0142",
)
_CLOCKS = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S.%f",
    " %I:%M %p",
    " %I:%M:%S %p",
    "T%H:%M",
    "T%H:%M:%S",
    "T%H:%M:%S.%f",
)
_DAYS = (
    *(
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%Y.%m.%d",
        "%d.%m.%Y",
        "%d.%m.%y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d/%m/%y",
        "%m/%d/%y",
    ),
    *(
        "%d-%m-%Y",
        "%m-%d-%Y",
        "%d-%m-%y",
        "%m-%d-%y",
        "%d %b %Y",
        "%d-%b-%Y",
        "%d-%b-%y",
        "%d/%b/%Y",
        "%d. %B %Y",
    ),
    *("%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%a %b %d %Y", "%a, %d %b %Y"),
)
_OTHER_DATES = (
    *("%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y"),
    *(
        "%Y%m%dT%H%M%SZ",
        "%Y%m%dT%H%M%S",
        "%Y%m%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S%z",
        "%a %b %d %H:%M:%S %Y",
    ),
    *(
        "%d/%b/%Y:%H:%M:%S %z",
        "%a, %d %b %Y %H:%M:%S GMT",
        "%a, %d %b %Y %H:%M:%S %z",
        "%Y-%m-%d %H:%M:%S %z",
    ),
)
_DIGIT_DATES = ("%Y%m%d", "%y%m%d", "%d%m%Y", "%m%d%Y", "%Y%m%d%H%M%S", "%Y%m")
_SHAPES = {
    "int64": r"[+-]?[0-9]+([.]0*)?",
    "bool": "true|t|yes|y|1|false|f|no|n|0",
    "float64": r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?",
    "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}.*",
    "timestamp": "[0-9]{4}-[0-9]{2}-[0-9]{2}.*",
}
_DATE_SHAPE = "[0-9]{1,4}[-/. ]|[A-Za-z]{3}.*[0-9]{2}|[0-9]{8}T"
TIMELIKE = re.compile(
    r"(^|[_ ])(date|time|day|dt|ts|at|on|timestamp|datetime|created|updated"
    r"|birth\w*|dob|epoch|unix|since|until|start|end|month)([_ ]|$)"
    r"|(date|time|timestamp|at)$",
    re.IGNORECASE,
)
_ID = re.compile(r"(^|_)(id|uuid|key|no|nr|number|code|zip|phone)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column was taken for, the values that do not fit it, and what a person should know
    of it.
    """

    column: Column
    misfits: int
    examples: tuple[str, ...]
    notes: tuple[str, ...]


def guess(con: duckdb.DuckDBPyConnection, header: str) -> Guess:
    """Return the guess for the table `seen` (t: trimmed text, n: how often), without texts that
    are null.
    """
    return _Guesser(con, header).guess()


class _Guesser:
    def __init__(self, con: duckdb.DuckDBPyConnection, header: str) -> None:
        self._con, self._header = con, header
        self._notes, self._hints = list[str](), list[str]()  # hints: why a column stayed text
        self._filled = self._count("true")
        listed = ", ".join(text_literal(token) for token in _TOKENS)
        rows = con.execute(
            f"SELECT t, n FROM seen WHERE lower(t) IN ({listed}) ORDER BY n DESC, t LIMIT 20"
        ).fetchall()
        self._tokens = {str(token): int(count) for token, count in rows}
        self._known: dict[str, int] = {}  # misfits of the columns that were asked for
        some = con.execute("SELECT t FROM seen ORDER BY hash(t) LIMIT 200").fetchall()
        self._some = [str(row[0]) for row in some if row[0] not in self._tokens]

    def guess(self) -> Guess:
        """Return the guess."""
        column = self._plain()
        if column is None or self._misfits(column):
            column = self._best(
                [*([column] if column else []), *self._numbers(), *self._dates()], column
            )
        elif column.type == "int64":
            column = self._digits(column)
        if column is None:
            column = self._text()
        elif column == Column(type="float64"):
            self._note_groups()
        misfits = self._misfits(column)
        bad = self._bad(column)
        shown = (
            self._con.execute(
                f"SELECT t FROM seen WHERE {bad} ORDER BY n DESC, t LIMIT 3"
            ).fetchall()
            if misfits
            else []
        )
        return Guess(
            column, misfits, tuple(str(row[0]) for row in shown), tuple(dict.fromkeys(self._notes))
        )

    def _count(self, condition: str) -> int:
        row = self._con.execute(
            f"SELECT coalesce(sum(n), 0) FROM seen WHERE {condition}"
        ).fetchone()
        return int(row[0]) if row else 0

    def _counts(self, conditions: Sequence[str]) -> list[int]:
        if not conditions:
            return []
        sums = ", ".join(f"coalesce(sum(n) FILTER ({condition}), 0)" for condition in conditions)
        return [int(value) for value in self._con.execute(f"SELECT {sums} FROM seen").fetchall()[0]]

    def _bad(self, column: Column) -> str:
        """Return the condition of a text that the contract would send to quarantine."""
        none = column.null_values or []
        cell = (
            f"CASE WHEN t NOT IN ({', '.join(map(text_literal, none))}) THEN t END" if none else "t"
        )
        value = f"({typed(cell, column, SOURCE)})"
        checks = column_checks("x", column, SOURCE, cell, value)
        return (
            f"({' OR '.join(f'coalesce({check}, false)' for check, _ in checks)})"
            if checks
            else "false"
        )

    def _misfits(self, column: Column) -> int:
        told = column.model_dump_json()
        if told not in self._known:
            self._known[told] = self._count(self._bad(column))
        return self._known[told]

    def _without_tokens(self, column: Column) -> Column | None:
        """Return the column with the tokens that keep its values from fitting, None where that does
        not make it fit.

        More than two tokens are told, and never declared unseen.
        """
        bad, misfits = self._bad(column), self._misfits(column)
        if not misfits:
            return column
        tokens = [
            token for token in self._tokens if self._count(f"t = {text_literal(token)} AND {bad}")
        ]
        if column.type in ("date", "timestamp"):
            tokens += self._far(column, tokens)
        count = self._count(f"t IN ({', '.join(map(text_literal, tokens))})") if tokens else 0
        rest, left = self._filled - count, misfits - count
        if not tokens or rest == 0 or left > (1 - FITS) * rest:
            return column if misfits <= (1 - FITS) * self._filled else None
        if len(tokens) > MAX_TOKENS:
            listed = ", ".join(map(_shown, tokens[:6]))
            if misfits <= (1 - FITS) * self._filled:
                return column
            self._hints.append(
                f"{column.type} but for {listed}: if these mean no value, write "
                f"{_fields(column)}, null_values: [...]"
            )
            return None
        return column.model_copy(update={"null_values": tokens})

    def _far(self, column: Column, tokens: Sequence[str]) -> list[str]:
        """Return dates out of the calendar of business, such as 9999-12-31, which people write
        for no end.
        """
        value = typed("t", column, SOURCE)
        rows = self._con.execute(
            f"SELECT t FROM seen WHERE ({value}) IS NOT NULL AND {self._bad(column)} ORDER BY n "
            f"DESC, t LIMIT {MAX_TOKENS + 1}"
        ).fetchall()
        return [str(row[0]) for row in rows if row[0] not in tokens]

    def _plain(self) -> Column | None:
        """Return the type that most values fit as they are, if enough do."""
        if not self._filled:
            return None
        kinds = [Column(type=kind) for kind, shape in _SHAPES.items() if self._shaped(shape)]  # type: ignore[arg-type]
        if not kinds:
            return None
        zeros, long = self._counts(["regexp_full_match(t, '[+-]?0[0-9]+')", _long()])
        # Codes: a number would lose their zeros.
        if zeros > (1 - FITS) * self._filled or (zeros and _ID.search(self._header)):
            kinds = [column for column in kinds if column.type in ("bool", "date", "timestamp")]
        elif long:  # more digits than a float holds
            kinds = [column for column in kinds if column.type != "float64"]
        return self._best(kinds, None)

    def _shaped(self, shape: str) -> bool:
        """Tell cheaply whether half of some values have the shape of a type: where they have
        not, nothing is to be counted.
        """
        return 2 * sum(
            re.fullmatch(shape, text, re.IGNORECASE) is not None for text in self._some
        ) >= max(1, len(self._some))

    def _sampled(self, columns: Sequence[Column]) -> list[Column]:
        """Return the candidates that half of the different values of a sample fit: the others
        cannot be it.
        """
        listed = ", ".join(text_literal(token) for token in self._tokens)
        known = f"WHERE t NOT IN ({listed})" if listed else ""
        sums = ", ".join(f"count(*) FILTER (NOT {self._bad(column)})" for column in columns)
        if not columns:
            return []
        row = self._con.execute(
            f"SELECT count(*), {sums} FROM (FROM seen {known} ORDER BY hash(t) LIMIT {SAMPLE})"
        ).fetchall()[0]
        return [
            column
            for column, fits in zip(columns, row[1:], strict=True)
            if row[0] and fits >= 0.5 * row[0]
        ]

    def _best(self, columns: Sequence[Column], known: Column | None) -> Column | None:
        """Return the candidate with the fewest misfits, the earlier of equals."""
        found: list[tuple[int, Column]] = []
        for column in columns:
            mended = column if column is known else self._without_tokens(column)
            if mended is not None:
                found.append((self._misfits(mended), mended))
                if not found[-1][0]:
                    return mended
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _numbers(self) -> Iterator[Column]:
        """Yield number columns in written forms that most values have."""
        digits = self._count("regexp_matches(t, '[0-9]')")
        if digits < 0.5 * (self._filled - sum(self._tokens.values())) or _ID.search(self._header):
            return
        tail = "regexp_matches(t, '%$')"
        percent = self._count(tail)
        listed = ", ".join(text_literal(unit) for unit in _UNITS)
        residue = "trim(regexp_replace(t, '[0-9.,+%''\u2019\u2212 \u00a0\u202f-]', '', 'g'))"
        rows = self._con.execute(
            f"SELECT {residue} AS u, sum(n) FROM seen WHERE u IN ({listed}) GROUP BY u ORDER BY 2 "
            "DESC"
        ).fetchall()
        unit = str(rows[0][0]) if rows else None
        if percent and percent < FITS * digits:
            self._hints.append(
                f"{percent} of {digits} numbers end in %, the others do not: make them alike"
            )
            return
        forms = [
            (".", ""),
            (",", ""),
            (".", ","),
            (",", "."),
            (".", " "),
            (",", " "),
            (".", "'"),
            (",", "'"),
        ]
        candidates = []
        marks = dict(
            zip(
                ",. '",
                self._counts([f"contains(t, {text_literal(mark)})" for mark in ",. '"]),
                strict=True,
            )
        )
        marks[" "] += self._count("regexp_matches(t, '[\u00a0\u202f]')")
        marks["'"] += self._count("contains(t, '\u2019')")
        for decimal, thousands in forms:
            if (decimal == "," and not marks[","]) or (thousands and not marks[thousands]):
                # A form is there where its marks are: digits alone are codes, or numbers as they
                # stand.
                continue
            for kind in ("float64",) if percent else ("int64", "float64"):
                given: dict[str, Any] = {
                    "type": kind,
                    "decimal": decimal,
                    "thousands": thousands,
                    "percent": bool(percent),
                }
                column = Column.model_validate(given | ({"unit": unit} if unit else {}))
                if column != Column(type=column.type):
                    candidates.append(column)
        fitting = [
            column
            for column in self._sampled(candidates)
            if self._without_tokens(column) is not None
        ]
        if self._both_ways(fitting):
            return
        yield from fitting

    def _both_ways(self, fitting: Sequence[Column]) -> bool:
        """Tell whether 1,234 can be 1234 and 1.234 alike, and note it."""
        groups = [column for column in fitting if column.thousands == "," and column.decimal == "."]
        decimals = [
            column for column in fitting if column.thousands == "" and column.decimal == ","
        ]
        if not groups or not decimals or self._count("contains(t, ',')") == 0:
            return False
        if self._misfits(groups[0]) != self._misfits(decimals[0]) or self._count(
            "regexp_matches(t, '^[^0-9]*0,')"
        ):
            return False
        row = self._con.execute(
            "SELECT t FROM seen WHERE contains(t, ',') ORDER BY n DESC, t LIMIT 1"
        ).fetchall()
        self._hints.append(
            f"numbers, but {_shown(row[0][0])} can be read in two ways: write thousands: ',' or "
            "decimal: ',', and type: float64"
        )
        return True

    def _dates(self) -> Iterator[Column]:
        """Yield time columns in written forms that most values have; none of several that say
        different days.
        """
        shaped, clocks = self._counts(
            [
                f"length(t) BETWEEN 5 AND 40 AND regexp_matches(t, '{_DATE_SHAPE}')",
                "contains(t, ':')",
            ]
        )
        if _ID.search(self._header) or shaped < 0.3 * self._filled:
            return
        ends = _CLOCKS[1:] if clocks > shaped / 2 else _CLOCKS[:1]
        written = [
            Column(type="timestamp" if clock else "date", dates=day + clock)
            for day in _DAYS
            for clock in ends
        ]
        written += [
            Column(type="timestamp" if "%H" in form else "date", dates=form)
            for form in _OTHER_DATES
        ]
        if TIMELIKE.search(self._header):
            written += [
                Column(type="timestamp" if "%H" in form else "date", dates=form)
                for form in _DIGIT_DATES
            ]
        fitting = [
            column for column in self._sampled(written) if self._without_tokens(column) is not None
        ]
        if not fitting:
            self._zones()
            return
        fewest = min(self._misfits(column) for column in fitting)
        fitting = [column for column in fitting if self._misfits(column) == fewest]
        yield from self._one_meaning(fitting)

    def _one_meaning(self, fitting: Sequence[Column]) -> Iterator[Column]:
        """Yield forms of equal fit where all of them read every value alike, else note which
        there are.
        """
        first = typed("t", fitting[0], SOURCE)
        for column in fitting[1:]:
            if column.type == fitting[0].type and self._count(
                f"({first}) IS DISTINCT FROM ({typed('t', column, SOURCE)})"
            ):
                forms = " or ".join(str(other.dates) for other in fitting)
                self._notes.append(
                    f"dates, but cannot tell day from month or year: write type: {column.type}, "
                    f"dates: {forms}"
                )
                return
        if "%y" in str(fitting[0].dates):
            self._notes.append("two digits of a year: 00 to 68 are taken as 20xx")
        yield fitting[0]

    def _zones(self) -> None:
        """Note times that name a zone, whose offset no name says for sure."""
        named = self._count(
            "regexp_full_match(t, '[0-9]{4}-.*[0-9] ?[A-Za-z]{2,5}') AND NOT regexp_matches(t, "
            "'(?i)(UTC|GMT|Z|AM|PM)$')"
        )
        if self._filled and named >= FITS * self._filled:
            self._hints.append(
                "times with the name of a zone: write them with an offset, or without and say "
                "timezone: Europe/Berlin"
            )

    def _digits(self, column: Column) -> Column:
        """Return a column of whole numbers as the dates or Unix times that it holds, where name
        and values say so.
        """
        named = TIMELIKE.search(self._header) is not None and not _ID.search(self._header)
        forms = _DIGIT_DATES if named else ("%Y%m%d",)
        candidates = [
            Column(
                type="timestamp" if "%H" in form else "date",
                dates=form,
                null_values=column.null_values,
            )
            for form in forms
        ]
        several = self._con.execute("SELECT count(*) FROM seen").fetchall()[0][0]
        if _ID.search(self._header) or (not named and several < 20):
            return column
        fitting = []
        for candidate in self._sampled(candidates):
            width = sum(
                4 if part == "Y" else 2 for part in re.findall("%(.)", str(candidate.dates))
            )
            near = f"extract(year FROM ({typed('t', candidate, SOURCE)})) BETWEEN 1900 AND 2100"
            mended = self._without_tokens(candidate)
            if mended is None or self._misfits(mended):
                continue
            none = (
                f" OR t IN ({', '.join(map(text_literal, mended.null_values))})"
                if mended.null_values
                else ""
            )
            if self._count(f"(length(t) = {width} AND {near}){none}") == self._filled:
                fitting.append(mended)
        if fitting and (found := next(self._one_meaning(fitting), None)) is not None:
            return found
        if named:
            none = (
                f" OR t IN ({', '.join(map(text_literal, column.null_values))})"
                if column.null_values
                else ""
            )
            for name, per_second in UNIX.items():
                # Of the years 2000 to 2039.
                low, high = 946_684_800 * per_second, 2_208_988_800 * per_second
                if (
                    self._count(f"try_cast(t AS BIGINT) BETWEEN {low} AND {high}{none}")
                    == self._filled
                ):
                    return Column(type="timestamp", dates=name, null_values=column.null_values)
        return column

    def _note_groups(self) -> None:
        """Note numbers whose decimals are three digits throughout, as thousands are."""
        points, groups = self._counts(
            ["contains(t, '.')", "regexp_full_match(t, '[+-]?[1-9][0-9]{0,2}[.][0-9]{3}')"]
        )
        if points and points == groups:
            self._notes.append(
                "every decimal has three digits: where 1.234 means 1234, write thousands: '.' and "
                "decimal: ','"
            )

    def _text(self) -> Column:
        """Return a text column; what no language has a word for means no value there, of other
        tokens it is told.
        """
        self._notes += self._hints
        plain = [token for token in self._tokens if token.lower() in _PLAIN_TOKENS]
        words = [token for token in self._tokens if token not in plain]
        if len(plain) > MAX_TOKENS or self._hints:
            words, plain = [*plain, *words], []
        if words and not self._hints and self._filled > sum(self._tokens.values()):
            counted = ", ".join(f"{_shown(token)} ({self._tokens[token]})" for token in words[:4])
            self._notes.append(
                f"holds {counted} as values; if that means none, write null_values: [...]"
            )
        return Column(type="string", null_values=plain or None)


def _long() -> str:
    """Return the condition of whole numbers that no int64 holds, and of which a float would keep
    the first digits alone.
    """
    return "regexp_full_match(t, '[+-]?[0-9]{16,}') AND try_cast(t AS BIGINT) IS NULL"


def written(column: Column) -> list[str]:
    """Return the fields of a guess, but for the type, as the draft writes them."""
    import json

    fields = []
    for name in ("decimal", "thousands", "percent", "unit", "dates", "null_values"):
        value = getattr(column, name)
        if value != type(column).model_fields[name].default:
            fields.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    return fields


def _fields(column: Column) -> str:
    return ", ".join([f"type: {column.type}", *written(column)])


def _shown(text: str) -> str:
    import json

    return json.dumps(text[:40])
