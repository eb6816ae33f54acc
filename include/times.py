"""Times as text: which forms are read, and the DuckDB expressions that turn them into UTC.

Read are ISO dates and times with `T` or a blank, with or without an offset. A date is 00:00 UTC unless the source says
`end_of_day`; a time without an offset is in the source's `timezone`, and is no time where a clock change makes it ambiguous.
"""

from __future__ import annotations

from include.usecase_sources import Source

_SHAPE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ Tt][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,12})?)?( ?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?))?)?"
)
OLDEST, NEWEST = "TIMESTAMPTZ '1900-01-01 00:00:00+00'", "TIMESTAMPTZ '2262-04-11 00:00:00+00'"
"""Times outside do not fit nanoseconds (which Arrow and pandas use), or are no times of business."""
EPOCH = "TIMESTAMPTZ '1970-01-01 00:00:00+00'"


def text_literal(text: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def utc(text: str, source: Source) -> str:
    """Return the expression of a text expression's time in UTC, NULL where it is none or is ambiguous."""
    day = f"CAST(try_cast({text} AS DATE) AS TIMESTAMPTZ)"
    if source.date_means == "end_of_day":
        day = f"({day} + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND)"
    return (
        f"CASE WHEN regexp_full_match({text}, '{_SHAPE}') THEN CASE WHEN length({text}) = 10 THEN {day} "
        f"{_zoned(text, source)} ELSE try_cast({text} AS TIMESTAMPTZ) END END"
    )


def aware(text: str) -> str:
    """Return the expression that tells whether a time carries an offset: NULL for dates and for no time."""
    tail = f"substr({text}, 12)"
    return (
        f"CASE WHEN length({text}) > 10 AND regexp_full_match({text}, '{_SHAPE}') "
        f"THEN right({text}, 1) IN ('Z', 'z') OR contains({tail}, '+') OR contains({tail}, '-') END"
    )


def is_time(text: str) -> str:
    """Return the expression that tells whether a text has the form of a time, ambiguous or not."""
    return f"(regexp_full_match({text}, '{_SHAPE}') AND try_cast({text} AS TIMESTAMPTZ) IS NOT NULL)"


def _zoned(text: str, source: Source) -> str:
    """Return the branch for times without an offset; none is needed where the zone is UTC, DuckDB's own here."""
    if source.timezone.upper() == "UTC":
        return ""
    zone, local = text_literal(source.timezone), f"try_cast({text} AS TIMESTAMP)"
    moment = f"timezone({zone}, {local})"
    same = [f"timezone({zone}, {moment} {sign} INTERVAL {minutes} MINUTE) = {local}" for sign in "+-" for minutes in (30, 60)]
    clear = f"timezone({zone}, {moment}) = {local} AND NOT ({' OR '.join(same)})"
    return f"WHEN NOT coalesce({aware(text)}, false) THEN CASE WHEN {clear} THEN {moment} END"
