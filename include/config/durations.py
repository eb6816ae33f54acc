"""Durations and sizes as a YAML writes them, and the days on which periods begin."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

PATTERN = r"^\s*(\d+)\s*(us|ms|s|m|h|d|w)\s*$"
"""How a duration is written: a whole number and its unit, blanks anywhere around them."""
SIZE = r"^\s*(\d+)\s*(MB|GB|TB)\s*$"
"""How a size is written: a whole number and its unit, each a thousand of the one before."""
_DURATION = re.compile(PATTERN)
_SIZES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def parse_duration(value: object) -> timedelta:
    """Return a duration such as `30d`, `2h`, `10m`, `0s`.

    Raises:
        ValueError: the text is no duration.
    """
    if isinstance(value, timedelta):
        return value
    if value == 0:
        return timedelta(0)
    match = _DURATION.match(str(value))
    if match is None:
        raise ValueError(
            f"{value!r} is no duration; write a number and one of us, ms, s, m, h, d, w, such as "
            "30d"
        )
    try:
        return int(match[1]) * _UNITS[match[2]]
    except OverflowError:
        raise ValueError(
            f"{value!r} is longer than a calendar holds; write a shorter duration"
        ) from None


def lag_after_event(text: str) -> timedelta | None:
    """Return the duration of `event + DURATION`, or None for other texts, such as a column name."""
    match = re.match(r"^\s*event\s*\+\s*(\S+)\s*$", text)
    return parse_duration(match[1]) if match else None


def format_duration(value: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads back."""
    micros = value // timedelta(microseconds=1)
    if micros == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s", "ms", "us"):
        size = _UNITS[unit] // timedelta(microseconds=1)
        if micros % size == 0:
            return f"{micros // size}{unit}"
    raise AssertionError("microseconds divide every duration")


def size_bytes(text: str) -> int:
    """Return the bytes of a size such as `500MB`.

    Raises:
        ValueError: the text is no size.
    """
    match = re.match(SIZE, text)
    if match is None:
        raise ValueError(f"{text!r} is no size; write a number and one of MB, GB, TB, such as 2GB")
    return int(match[1]) * _SIZES[match[2]]


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=Annotated[str, Field(pattern=PATTERN)]),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]


def period_start(cadence: str, day: date) -> date:
    """Return the first day of the period: the day itself, its Monday, or the first of its month."""
    if cadence == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if cadence == "month" else day


def next_period_start(cadence: str, start: date) -> date:
    """Return the first day of the period after the one that begins at `start`."""
    if cadence == "month":
        # 32 days from a first lie in the next month, whatever its length.
        return (start.replace(day=1) + timedelta(days=32)).replace(day=1)
    return start + timedelta(days=7 if cadence == "week" else 1)


def midnight(day: date) -> datetime:
    """Return 00:00 UTC of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
