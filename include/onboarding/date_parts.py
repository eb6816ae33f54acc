"""A date that stands in several columns (year, month, day), and the lead time before it.

What is found becomes a computed column of the source: its expression is written once, with places
for the columns, for the table here and for the YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from include.lake.sql import quote
from include.onboarding.column_texts import FITS
from include.onboarding.header_words import LEAD_TIME, plain
from include.onboarding.profile import Profile, Table

_PARTS = {
    "year": r"(?:year|yr|yyyy)",
    "month": r"(?:month|mon|mm|month_?(?:name|number|no))",
    "day": r"(?:day_?of_?month|day|dom|mday|dd)",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMES = (
    "jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?"
    "|nov(ember)?|dec(ember)?"
)
"""English names of months, whole or cut; a full stop may follow."""
_CLOCK = r"(^|_)(time|hour|clock|uhrzeit)(_|$)|time$"
_DAY_NAME = r"(^|_)(date|day|datum|dt|timestamp|datetime)(_|$)|date$"
_FIRST_DAY, _LAST_DAY = 25_569, 60_000  # of Excel: 1970 to 2064
_MANY = 20  # different numbers from which they may be days
MOST_LEAD = 3_650  # days; more is no time between a decision and what it is about


@dataclass(frozen=True, slots=True)
class Expression:
    """An SQL expression with `{0}`, `{1}`, ... for columns, and their headers.

    `casts` are the types of its columns here, where all values are texts; whole numbers else.
    """

    template: str
    parts: tuple[str, ...]
    kind: Literal["date", "timestamp"] = "date"
    casts: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """What a draft says of it."""
        if "1899-12-30" in self.template:
            return "guessed: Excel's days, counted from the end of 1899"
        return "guessed: one date of several columns"

    @property
    def has_clock(self) -> bool:
        """Whether it adds the hours of one column to the date of another."""
        return "AS TIME)" in self.template

    def over(self, names: dict[str, str]) -> str:
        """Return the expression over columns by the names that a YAML gives them."""
        return self.template.format(*(names[part] for part in self.parts))

    def in_table(self) -> str:
        """Return the expression over the texts of a table's columns; an error is no value."""
        casts = self.casts or ("BIGINT",) * len(self.parts)
        typed = (
            quote(part)
            if f"{{{place}}}[:3]" in self.template
            else f"TRY_CAST({quote(part)} AS {casts[place]})"
            for place, part in enumerate(self.parts)
        )
        return f"TRY({self.template.format(*typed)})"


def add_dates(table: Table) -> tuple[Profile, ...]:
    """Add the dates that stand in several columns to a table, the surest first.

    Where a column sounds of a lead time in days, the date so much earlier comes before its own.
    """
    found: list[Profile] = []
    for stem, expression in _dates(table):
        date = table.add_computed(stem or "date", expression.in_table(), expression)
        if date.nulls > (1 - FITS) * table.rows:
            continue
        for lead in table.columns:
            if not LEAD_TIME.search(plain(lead.header)) or not _is_lead(table, lead):
                continue
            place = len(expression.parts)
            earlier = Expression(
                f"{expression.template} - CAST({{{place}}} AS INTEGER)",
                (*expression.parts, lead.header),
            )
            profile = table.add_computed("decided_on", earlier.in_table(), earlier)
            if profile.nulls <= (1 - FITS) * table.rows:
                found.append(profile)
        found.append(date)
    for name, expression in (*_clocks(table), *_serials(table)):
        moment = table.add_computed(name, expression.in_table(), expression)
        if moment.nulls <= (1 - FITS) * table.rows:
            found.append(moment)
    return tuple(found)


def _clocks(table: Table) -> Iterator[tuple[str, Expression]]:
    """Yield the moments of a date in one column and a clock in another; of several clocks none."""
    clocks = [
        column
        for column in table.columns
        if column.type == "string"
        and re.search(_CLOCK, plain(column.header))
        and _are_clocks(table, column)
    ]
    if len(clocks) != 1:
        return
    for date in table.columns:
        if date.type == "date":
            template = "{0} + CAST({1} AS TIME)"
            casts = ("DATE", "VARCHAR")
            headers = (date.header, clocks[0].header)
            yield f"{plain(date.header)}_at", Expression(template, headers, "timestamp", casts)


def _are_clocks(table: Table, column: Profile) -> bool:
    return not table.scalar(
        f"SELECT count(*) FROM given WHERE {quote(column.header)} IS NOT NULL AND NOT "
        f"regexp_full_match({quote(column.header)}, '[0-2]?[0-9]:[0-5][0-9](:[0-5][0-9])?')"
    )


def _serials(table: Table) -> Iterator[tuple[str, Expression]]:
    """Yield the moments of numbers that are Excel's days, counted from the end of 1899."""
    for column in table.columns:
        if column.type not in ("int64", "float64") or column.distinct < _MANY:
            continue
        if not re.search(_DAY_NAME, plain(column.header)):
            continue
        number = f"TRY_CAST({quote(column.header)} AS DOUBLE)"
        if table.scalar(
            f"SELECT count(*) FROM given WHERE {quote(column.header)} IS NOT NULL AND "
            f"({number} NOT BETWEEN {_FIRST_DAY} AND {_LAST_DAY}) IS NOT FALSE"
        ):
            continue
        if column.type == "int64":
            of_day = Expression("DATE '1899-12-30' + CAST({0} AS INTEGER)", (column.header,))
        else:
            # To the second: Excel keeps no more of a day's parts than a double does.
            seconds = "to_seconds(CAST(round({0} * 86400) AS BIGINT))"
            template = f"TIMESTAMP '1899-12-30 00:00:00' + {seconds}"
            of_day = Expression(template, (column.header,), "timestamp", ("DOUBLE",))
        yield f"{plain(column.header)}_day", of_day


def _dates(table: Table) -> Iterator[tuple[str, Expression]]:
    """Yield the stem and the expression of each date in parts; a day may be missing."""
    stems: dict[str, dict[str, Profile]] = {}
    for column in table.columns:
        for part, stem in _named_parts(column.header):
            stems.setdefault(stem, {}).setdefault(part, column)
    for stem, parts in stems.items():
        year, month, day = (parts.get(part) for part in ("year", "month", "day"))
        if year is None or month is None or not _within(table, year, 1900, 2100):
            continue
        if _within(table, month, 1, 12):
            of_month = "{1}"
        elif _is_month_name(table, month):
            listed = ", ".join(f"'{name}'" for name in _MONTHS)
            of_month = f"list_position([{listed}], lower({{1}}[:3]))"
        else:
            continue
        if day is not None and not _within(table, day, 1, 31):
            continue
        headers = (year.header, month.header, *([day.header] if day is not None else []))
        of_day = "{2}" if day is not None else "1"
        yield stem, Expression(f"make_date({{0}}, {of_month}, {of_day})", headers)


def _named_parts(header: str) -> Iterator[tuple[str, str]]:
    """Yield which part of a date a header names, and the words around it."""
    name = plain(header)
    for part, word in _PARTS.items():
        for pattern in (rf"(?P<stem>.*?)_?{word}", rf"{word}_?(?:of_)?(?P<stem>.+)"):
            match = re.fullmatch(pattern, name)
            # `birthday` ends in a part and names none: a stem is words of its own.
            if match is not None and (
                not match["stem"]
                or name.startswith(f"{match['stem']}_")
                or f"_{match['stem']}" in name
            ):
                yield part, match["stem"].strip("_")
                break


def _within(table: Table, column: Profile, low: int, high: int) -> bool:
    """Tell whether a column holds whole numbers of a range alone."""
    if column.type != "int64":
        return False
    value = f"TRY_CAST({quote(column.header)} AS BIGINT)"
    return not table.scalar(
        f"SELECT count(*) FROM given WHERE {quote(column.header)} IS NOT NULL AND "
        f"({value} NOT BETWEEN {low} AND {high}) IS NOT FALSE"
    )


def _is_month_name(table: Table, column: Profile) -> bool:
    return column.type == "string" and not table.scalar(
        f"SELECT count(*) FROM given WHERE NOT regexp_full_match(lower({quote(column.header)}), "
        f"'({_NAMES})[.]?')"
    )


def _is_lead(table: Table, column: Profile) -> bool:
    return column.nulls == 0 and _within(table, column, 0, MOST_LEAD)
