"""DuckDB expressions that turn times as text into UTC, and tell which texts are times.

Read are ISO dates and times with `T` or a blank, with or without an offset (`Z`, `UTC` and `GMT`
are one), or what a column's `dates` says: a strptime format, or Unix time. A date is 00:00 UTC
unless the source says `end_of_day`; a time without an offset is in the source's `timezone`, and is
no time where a clock change makes it ambiguous. What names a week, a month or a year ends with
its last day.
"""

from __future__ import annotations

import re

from include.config.date_forms import Named, counts_days_or_weeks, is_aware, named_by
from include.config.use_case_sources import UNIX, Source
from include.lake.sql import text_literal

# An offset of zero in letters, alone or after one in digits.
_ZERO = r"( ?[+]00:?00)? ?([Uu][Tt][Cc]|[Gg][Mm][Tt])"
# A date, or a date and a time of minutes, seconds or fractions, with or without an offset. What
# DuckDB's cast takes beyond that (`now`, `infinity`, years BC, names of zones, an offset of four
# days) is no time here. No zone ever was more than 15:13 from UTC.
_SHAPE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ Tt][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,12})?)?( "
    rf"?([Zz]|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)|{_ZERO})?)?"
)
_FAR_OFFSET = "[+-](1[6-9]|[2-9][0-9])(:?[0-9]{2})?$|[+-][0-9]{2}:?[6-9][0-9]$"
OLDEST, NEWEST = "TIMESTAMPTZ '1900-01-01 00:00:00+00'", "TIMESTAMPTZ '2262-04-11 00:00:00+00'"
"""Times outside do not fit nanoseconds (which Arrow and pandas use), or are no times of
business.
"""
EPOCH = "TIMESTAMPTZ '1970-01-01 00:00:00+00'"
# How long what a form names lasts. A date of a form with a clock is a day: at 00:00 it is one.
_LASTS: dict[Named | None, str] = {
    "moment": "1 DAY",
    "day": "1 DAY",
    "week": "7 DAY",
    "month": "1 MONTH",
    "year": "1 YEAR",
}


def utc(text: str, source: Source, dates: str | None = None) -> str:
    """Return the expression of a text's time in UTC, NULL where it is none or is ambiguous.

    `text` is an expression. `dates` is the form that the column declares; without one the time is
    ISO.
    """
    if dates in UNIX:
        return _unix(text, str(dates))
    if dates is not None:
        return _formatted(text, source, dates)
    day = of_day(f"try_cast({text} AS DATE)", source)
    return (
        f"CASE WHEN regexp_full_match({text}, '{_SHAPE}') THEN CASE WHEN length({text}) = 10 THEN "
        f"{day} {_zoned(text, source)} ELSE {_with_offset(text)} END END"
    )


def of_day(day: str, source: Source, dates: str | None = None) -> str:
    """Return the expression of the moment that a DATE stands for; `dates` is its column's form."""
    return _ended(f"CAST({day} AS TIMESTAMPTZ)", source, dates)


def of_local(local: str, source: Source) -> str:
    """Return the expression of a TIMESTAMP of the source's zone in UTC, NULL where ambiguous."""
    if source.timezone.upper() == "UTC":
        return f"CAST({local} AS TIMESTAMPTZ)"
    return f"CASE {_clear(local, source)} END"


def date(text: str, dates: str | None = None) -> str:
    """Return the expression of a text's day, NULL where it is none or says a time within a day."""
    if dates in UNIX or (dates is not None and is_aware(dates)):
        moment = _unix(text, str(dates)) if dates in UNIX else _parsed(text, str(dates))
        return f"CASE WHEN date_trunc('day', {moment}) = {moment} THEN CAST({moment} AS DATE) END"
    if dates is not None:
        local = _parsed(text, dates)
        return f"CASE WHEN date_trunc('day', {local}) = {local} THEN CAST({local} AS DATE) END"
    return (
        f"CASE WHEN regexp_full_match({text}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ "
        f"T]00:00(:00([.]0+)?)?)?') THEN try_cast({text}[:10] AS DATE) END"
    )


def aware(text: str, read: str = "false") -> str:
    """Return the expression that tells whether an ISO time carries an offset.

    It is NULL of dates, and of what is no time. `read` is a condition of texts that are known to be
    times or dates: these are not matched again.
    """
    tail = f"substr({text}, 12)"
    return (
        f"CASE WHEN length({text}) > 10 AND ({read} OR regexp_full_match({text}, '{_SHAPE}')) THEN "
        f"CASE WHEN right({text}, 1) IN ('Z', 'z', 'C', 'c', 'T', 't') THEN true ELSE "
        f"contains({tail}, '+') OR contains({tail}, '-') END END"
    )


def is_time(text: str, dates: str | None = None) -> str:
    """Return the expression that tells whether a text has the form of a time, ambiguous or not."""
    if dates in UNIX:
        return f"({_unix(text, str(dates))} IS NOT NULL)"
    if dates is not None:
        return f"({_parsed(text, dates)} IS NOT NULL)"
    return f"(regexp_full_match({text}, '{_SHAPE}') AND {_with_offset(text)} IS NOT NULL)"


def _with_offset(text: str) -> str:
    # Letters at the end, small ones, and a blank before the offset are read where the cast alone
    # gave nothing: to take them off first would copy every text for the few that have some.
    zero = f"regexp_replace({text}, '{_ZERO}$', 'Z')"
    plain = rf"upper(regexp_replace({zero}, ' ?([Zz]|[+-][0-9:]+)$', '\1'))"
    written = (
        f"right({text}, 1) IN ('C', 'c', 'T', 't', 'Z', 'z') OR contains(substr({text}, 12), ' ') "
        f"OR substr({text}, 11, 1) = 't'"
    )
    return (
        f"coalesce(try_cast({text} AS TIMESTAMPTZ), CASE WHEN {written} THEN "
        f"try_cast({plain} AS TIMESTAMPTZ) END)"
    )


def _ended(start: str, source: Source, dates: str | None) -> str:
    """Return the moment that a date stands for, of the start of what it names."""
    if source.date_means != "end_of_day":
        return start
    # A source refuses a form of which nobody can tell how long what it names lasts.
    return f"({start} + INTERVAL {_LASTS[named_by(dates)]} - INTERVAL 1 MICROSECOND)"


def _parsed(text: str, dates: str) -> str:
    """Return the expression of a text as strptime reads it, but for what is no day or moment.

    Whatever the form is, DuckDB reads `epoch` and `infinity` as 1900, a day 366 or a week 53 that
    the year has not as one of the next year, and an offset of 99 hours.
    """
    form = text_literal(dates)
    parsed = f"try_strptime({text}, {form})"
    is_one = [f"regexp_matches({text}, '[0-9]')"]
    if dates.endswith("%z"):
        is_one.append(f"NOT regexp_matches({text}, '{_FAR_OFFSET}')")
    if counts_days_or_weeks(dates):
        # A week 00 begins in the year before, and ends in its own.
        days = [parsed, f"({parsed} + INTERVAL 6 DAY)"]
        shown = ", ".join(_numbers(f"strftime({day}, {form})") for day in days)
        is_one.append(f"{_numbers(text)} IN ({shown})")
    if re.search("%-?n", dates):
        # Cut to microseconds, as ISO times are: the cast would round the last ones into the next
        # day.
        nanos = f"epoch_ns({parsed})"
        make = "make_timestamptz" if is_aware(dates) else "make_timestamp"
        parsed = f"{make}(({nanos} - ({nanos} % 1000 + 1000) % 1000) // 1000)"
    return f"CASE WHEN {' AND '.join(is_one)} THEN {parsed} END"


def _numbers(text: str) -> str:
    """Return the expression of the numbers in a text, without leading zeros."""
    spaced = f"trim(regexp_replace({text}, '[^0-9]+', ' ', 'g'))"
    return rf"regexp_replace({spaced}, '\b0+([0-9])', '\1', 'g')"


def _formatted(text: str, source: Source, dates: str) -> str:
    parsed = _parsed(text, dates)
    if named_by(dates) != "moment":
        return _ended(f"CAST({parsed} AS TIMESTAMPTZ)", source, dates)
    return f"CAST({parsed} AS TIMESTAMPTZ)" if is_aware(dates) else of_local(parsed, source)


def _unix(text: str, dates: str) -> str:
    """Return the expression of a Unix time in the unit that `dates` names.

    Whole numbers are cut to microseconds as integers: no digit of them goes through a float.
    """
    per_second = UNIX[dates]
    whole = f"try_cast(split_part({text}, '.', 1) AS BIGINT)"
    scale = (
        f"{whole} * {1_000_000 // per_second}"
        if per_second <= 1_000_000
        else f"{whole} // {per_second // 1_000_000}"
    )
    micros = scale
    if per_second < 1_000_000:
        # 1e-6 of a microsecond more: few decimal fractions are exact as doubles, and floor would
        # cut 28.999... to 28.
        fraction = f"try_cast('0.' || split_part({text}, '.', 2) || '0' AS DOUBLE)"
        sign = f"CASE WHEN starts_with({text}, '-') THEN -1 ELSE 1 END"
        micros = (
            f"{scale} + {sign} * CAST(floor({fraction} * {1_000_000 // per_second} + 1e-6) "
            "AS BIGINT)"
        )
    # make_timestamptz raises beyond the nanoseconds of 64 bits, which end in 2262.
    return (
        f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]{{1,19}}([.][0-9]*)?') "
        f"AND abs({whole}) < {9_223_372_036 * per_second} THEN make_timestamptz({micros}) END"
    )


def _zoned(text: str, source: Source) -> str:
    """Return the branch for times without an offset, empty where the zone is the connection's."""
    if source.timezone.upper() == "UTC":
        return ""
    clear = _clear(f"try_cast({text} AS TIMESTAMP)", source)
    # Asked only of what has the form of a time already.
    return f"WHEN NOT coalesce({aware(text, 'true')}, false) THEN CASE {clear} END"


def _clear(local: str, source: Source) -> str:
    """Return `WHEN ... THEN` of a local time that is one moment in the source's zone.

    The zone's offsets a day before and a day after are the two that a change within these days can
    mean, whatever its size: where both give the local time, but not the same moment, it came twice.
    """
    zone = text_literal(source.timezone)
    moment = f"timezone({zone}, {local})"
    candidates = []
    for sign in "-+":
        other = f"({moment} {sign} INTERVAL 1 DAY)"
        candidates.append(
            f"timezone('UTC', {local} - (timezone({zone}, {other}) - timezone('UTC', {other})))"
        )
    both = " AND ".join(f"timezone({zone}, {candidate}) = {local}" for candidate in candidates)
    twice = f"{both} AND {candidates[0]} <> {candidates[1]}"
    return f"WHEN timezone({zone}, {moment}) = {local} AND NOT ({twice}) THEN {moment}"
