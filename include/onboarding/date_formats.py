"""Written forms of dates and times: with marks, as digits alone, and Unix times."""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.config.use_case_sources import UNIX, Column
from include.ingestion.values import typed
from include.lake.sql import text_literal
from include.onboarding.column_texts import FITS, SOURCE, ColumnTexts

_CLOCKS = [
    *[" %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M"],
    *["T%H:%M:%S", "T%H:%M:%S.%f"],
]
_DAYS = [
    *["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y"],
    *["%d/%m/%y", "%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y"],
    *["%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%d. %B %Y", "%d %B %Y", "%b %d, %Y"],
    *["%B %d, %Y", "%b %d %Y", "%a %b %d %Y", "%a, %d %b %Y"],
]
_OTHERS = [
    *["%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y"],
    *["%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
    *["%a %b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT"],
    *["%a, %d %b %Y %H:%M:%S %z", "%Y-%m-%d %H:%M:%S %z"],
    # As Python's log, spreadsheets of some countries and Oracle write them.
    *["%Y-%m-%d %H:%M:%S,%f", "%d.%m.%Y %H.%M", "%d.%m.%y %H.%M", "%d-%b-%y %I.%M.%S.%n %p"],
]
_DIGITS = ("%Y%m%d", "%y%m%d", "%d%m%Y", "%m%d%Y", "%Y%m%d%H%M%S", "%Y%m")
# A number and a mark, a name and a number, or eight digits and a clock: cheap to look for.
_SHAPE = "[0-9]{1,4}[-/. ]|[A-Za-z]{3}.*[0-9]{2}|[0-9]{8}T"
_MANY = 20  # different texts from which digits may be dates in a column whose name says nothing
_FIRST_SECOND, _LAST_SECOND = 946_684_800, 2_208_988_800  # of the years 2000 to 2039


def date_formats(texts: ColumnTexts) -> list[Column]:
    """Return the written form of times that nearly all values have; none of two meanings."""
    shaped, clocks = texts.counts(
        [f"length(t) BETWEEN 5 AND 40 AND regexp_matches(t, '{_SHAPE}')", "contains(t, ':')"]
    )
    if texts.sounds_of_id or shaped < 0.3 * texts.filled:
        return []
    ends = _CLOCKS if clocks > shaped / 2 else [""]
    candidates = [
        Column(type="timestamp" if clock else "date", dates=day + clock)
        for day in _DAYS
        for clock in ends
    ]
    candidates += [_candidate(form) for form in _OTHERS]
    if texts.sounds_of_time:
        candidates += [_candidate(form) for form in _DIGITS]
    fitting = texts.fitting(candidates)
    if not fitting:
        _hint_at_zones(texts)
        return []
    fewest = min(texts.misfits(column) for column in fitting)
    form = _one_meaning(texts, [column for column in fitting if texts.misfits(column) == fewest])
    return [] if form is None else [form]


def as_digits(texts: ColumnTexts, column: Column) -> Column:
    """Return a column of whole numbers as the dates or Unix times that it holds, if it does.

    Name and values have to say so.
    """
    named = texts.sounds_of_time
    if texts.sounds_of_id or (not named and texts.different < _MANY):
        return column
    forms = _DIGITS if named else _DIGITS[:1]
    fitting = []
    for candidate in texts.half_fitting([_candidate(form, column) for form in forms]):
        mended = texts.without_tokens(candidate)
        if mended is None or texts.misfits(mended):
            continue
        # %Y%m%d also reads 2501 as a day: all digits have to be there, and a year of our time.
        width = sum(4 if part == "Y" else 2 for part in re.findall("%(.)", str(mended.dates)))
        year = f"extract(year FROM ({typed('t', candidate, SOURCE)}))"
        near = f"(length(t) = {width} AND {year} BETWEEN 1900 AND 2100)"
        if texts.count(f"{near}{_or_none(mended)}") == texts.filled:
            fitting.append(mended)
    if fitting and (form := _one_meaning(texts, fitting)) is not None:
        return form
    if named:
        for name, per_second in UNIX.items():
            low, high = _FIRST_SECOND * per_second, _LAST_SECOND * per_second
            within = f"try_cast(t AS BIGINT) BETWEEN {low} AND {high}"
            if texts.count(f"{within}{_or_none(column)}") == texts.filled:
                return Column(type="timestamp", dates=name, null_values=column.null_values)
    return column


def _candidate(form: str, column: Column | None = None) -> Column:
    """Return a column of a form, with the tokens of another one."""
    tokens = None if column is None else column.null_values
    return Column(
        type="timestamp" if re.search("%[HI]", form) else "date", dates=form, null_values=tokens
    )


def _or_none(column: Column) -> str:
    """Return the end of a condition that also lets a column's tokens pass."""
    tokens = column.null_values
    return f" OR t IN ({', '.join(map(text_literal, tokens))})" if tokens else ""


def _one_meaning(texts: ColumnTexts, fitting: Sequence[Column]) -> Column | None:
    """Return the first of forms that fit equally, if all of them read every value alike.

    Else which there are is noted: day and month cannot be told apart.
    """
    first = typed("t", fitting[0], SOURCE)
    for column in fitting[1:]:
        if column.type == fitting[0].type and texts.count(
            f"({first}) IS DISTINCT FROM ({typed('t', column, SOURCE)})"
        ):
            forms = " or ".join(str(other.dates) for other in fitting)
            texts.notes.append(
                f"dates, but cannot tell day from month or year: write type: {column.type}, "
                f"dates: {forms}"
            )
            return None
    if "%y" in str(fitting[0].dates):
        texts.notes.append("two digits of a year: 00 to 68 are taken as 20xx")
    return fitting[0]


def _hint_at_zones(texts: ColumnTexts) -> None:
    """Hint at times that name a zone, such as CET: no name says its offset for sure.

    Other times that no form reads are shown as they are written.
    """
    named = texts.count(
        "regexp_full_match(t, '[0-9]{4}-.*[0-9] ?[A-Za-z]{2,5}') AND NOT regexp_matches(t, "
        "'(?i)(UTC|GMT|Z|AM|PM)$')"
    )
    if texts.filled and named >= FITS * texts.filled:
        texts.hints.append(
            "times with the name of a zone: write them with an offset, or without and say "
            "timezone: Europe/Berlin"
        )
        return
    alike = "regexp_matches(t, '^[0-9]{4}[-/.][0-9]{2}[-/.][0-9]{2}.*[0-9]{2}[:.][0-9]{2}')"
    if texts.filled and texts.count(alike) >= FITS * texts.filled:
        ((shown,),) = texts.rows(f"SELECT min(t) FROM seen WHERE {alike}")
        texts.hints.append(
            f"times in a form that is not known, such as {shown!r}: write them as "
            "2025-01-31 23:59:00, with an offset (+01:00) or without"
        )
