"""Texts are times in UTC, days or nothing; a clock change makes none of two moments."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.config.use_case_sources import Source
from include.ingestion import times
from include.lake.sql import connect, text_literal


def source(**more: Any) -> Source:
    given = {"path": "a.csv", "key": ["id"], "columns": {"id": {"type": "int64"}}}
    return Source.model_validate(given | more)


def value(expression: str) -> Any:
    with connect() as con:
        return con.execute(f"SELECT {expression}").fetchall()[0][0]


def utc(text: str, dates: str | None = None, **more: Any) -> Any:
    return value(times.utc(text_literal(text), source(**more), dates))


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01 12:00",
        "2026-03-01T12:00:00.000000+00:00",
        "2026-03-01 14:00:00+02",
        "2026-03-01 12:00:00 UTC",
        "2026-03-01 12:00:00+00:00 GMT",
        "2026-03-01 12:00gmt",
        "2026-03-01T12:00:00.0utc",
        "2026-03-01 13:00:00 +0100",
        "2026-03-01 07:00 -05:00",
        "2026-03-01t12:00:00z",
        "2026-03-01T12:00:00 Z",
    ],
)
def test_iso_times_are_read_with_and_without_an_offset(text: str) -> None:
    assert utc(text) == NOON
    assert value(times.is_time(text_literal(text))) is True


@pytest.mark.parametrize(
    "text",
    [
        *["now", "infinity", "2026-02-30", "2026-13-01", "2026-3-1", "12:00", ""],
        "2026-03-01T25:00",
        *["2026-03-01 12:00+99", "2026-03-01 12:00+16:00", "2026-03-01 12:00-01:75"],
    ],
)
def test_what_is_no_iso_time_is_none(text: str) -> None:
    assert utc(text) is None
    assert value(times.is_time(text_literal(text))) is False


def test_a_date_is_the_start_or_the_end_of_its_day() -> None:
    assert utc("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)
    end = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    assert utc("2026-03-01", date_means="end_of_day") == end
    assert utc("01.03.2026", "%d.%m.%Y", date_means="end_of_day") == end


@pytest.mark.parametrize(
    ("text", "dates", "last"),
    [
        ("2026-03", "%Y-%m", date(2026, 3, 31)),
        ("Feb 2028", "%b %Y", date(2028, 2, 29)),
        ("2026", "%Y", date(2026, 12, 31)),
        ("2026-W10", "%G-W%V", date(2026, 3, 8)),
        ("2026-W09", "%Y-W%W", date(2026, 3, 8)),
        ("2026-W09-3", "%Y-W%W-%w", date(2026, 3, 4)),
        ("2026-03-04", "%x", date(2026, 3, 4)),
        ("2026-03-04Z", "%Y-%m-%dZ", date(2026, 3, 4)),
        ("2026 063", "%Y %j", date(2026, 3, 4)),
    ],
)
def test_what_names_more_than_a_day_ends_with_its_last_day(
    text: str, dates: str, last: date
) -> None:
    """Whether its column is declared a timestamp or a date."""
    means: dict[str, Any] = {"date_means": "end_of_day"}
    end = datetime(last.year, last.month, last.day, 23, 59, 59, 999_999, tzinfo=UTC)
    assert utc(text, dates, **means) == end
    day = times.date(text_literal(text), dates)
    assert value(times.of_day(day, source(**means), dates)) == end


def test_a_form_with_a_clock_is_a_moment() -> None:
    for text, dates in (("2026-03-01 12:00:00", "%c"), ("01.03.2026 12:00:00", "%d.%m.%Y %T")):
        assert utc(text, dates, date_means="end_of_day") == NOON


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        *[("infinity", "%d.%m.%Y"), ("-Infinity", "%Y"), ("epoch", "%Y-%m-%d %H:%M:%S %z")],
        *[("2026-366", "%Y-%j"), ("2025-W53", "%G-W%V"), ("2025-W53-7", "%G-W%V-%u")],
        *[("2025 53", "%Y %U"), ("2026-W53-1", "%Y-W%W-%w")],
        *[("01.03.2026 12:00 +99", "%d.%m.%Y %H:%M %z"), ("2026 12:00 -0175", "%Y %H:%M %z")],
    ],
)
def test_what_a_form_cannot_name_is_none(text: str, dates: str) -> None:
    """DuckDB reads words as 1900, and what a year has not as a day of the next one."""
    assert utc(text, dates) is None
    assert value(times.date(text_literal(text), dates)) is None
    assert value(times.is_time(text_literal(text), dates)) is False


def test_days_and_weeks_that_few_years_have_are_read() -> None:
    assert value(times.date("'2028-366'", "%Y-%j")) == date(2028, 12, 31)
    assert value(times.date("' 2026 W53'", "%G W%V")) == date(2026, 12, 28)
    assert value(times.date("'2025-W00'", "%Y-W%W")) == date(2024, 12, 30), "1 January is in it"
    assert value(times.date("'2025-W0-3'", "%Y-W%W-%w")) == date(2025, 1, 1)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_nanoseconds_are_cut_and_never_reach_the_next_day(zone: str) -> None:
    for year in (1969, 2026):
        last = datetime(year, 3, 1, 23, 59, 59, 999_999, tzinfo=ZoneInfo(zone))
        for dates, end in (("%d.%m.%Y %H:%M:%S.%n", ""), ("%d.%m.%Y %H:%M:%S.%n%z", "+00")):
            if end and zone != "UTC":
                continue
            text = f"01.03.{year} 23:59:59.9999999{end}"
            assert utc(text, dates, timezone=zone) == last, (text, dates)


def test_a_local_time_is_one_moment_or_none() -> None:
    berlin = {"timezone": "Europe/Berlin"}
    assert utc("2026-03-01 13:00", **berlin) == NOON
    assert utc("2026-03-01 12:00Z", **berlin) == NOON, "an offset says more than the zone"
    assert utc("2026-03-29 02:30", **berlin) is None, "the clock was put forward over it"
    assert utc("2026-10-25 02:30", **berlin) is None, "it came twice"
    assert value(times.is_time("'2026-10-25 02:30'")) is True
    assert utc("25.10.2026 02:30", "%d.%m.%Y %H:%M", **berlin) is None
    assert utc("01.03.2026 13:00", "%d.%m.%Y %H:%M", **berlin) == NOON


@pytest.mark.parametrize(
    ("text", "dates", "micros"),
    [
        ("1772366400", "unix_seconds", 0),
        ("1772366400.000001", "unix_seconds", 1),
        ("1772366400.29", "unix_seconds", 290_000),
        ("1772366400123", "unix_milliseconds", 123_000),
        ("1772366400123456", "unix_microseconds", 123_456),
        ("1772366400123456789", "unix_nanoseconds", 123_456),
    ],
)
def test_unix_times_are_exact_to_the_microsecond(text: str, dates: str, micros: int) -> None:
    assert utc(text, dates) == NOON.replace(microsecond=micros)


def test_unix_times_before_1970_and_beyond_what_fits() -> None:
    assert utc("-0.5", "unix_seconds") == datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)
    assert utc("99999999999", "unix_seconds") is None
    assert utc("1e9", "unix_seconds") is None


def test_a_day_has_no_time_within_it() -> None:
    day = date(2026, 3, 1)
    for text in ("2026-03-01", "2026-03-01T00:00", "2026-03-01 00:00:00.000"):
        assert value(times.date(text_literal(text))) == day
    assert value(times.date("'2026-03-01 00:01'")) is None
    assert value(times.date("'01/03/2026'", "%d/%m/%Y")) == day
    assert value(times.date("'01/03/2026 05'", "%d/%m/%Y %H")) is None
    assert value(times.date("'1772323200'", "unix_seconds")) == day
    assert value(times.date("'1772366400'", "unix_seconds")) is None


def test_only_a_time_is_aware_or_naive() -> None:
    texts = ["2026-03-01 12:00Z", "2026-03-01 12:00-05", "2026-03-01 12:00", "2026-03-01", "x"]
    assert [value(times.aware(text_literal(text))) for text in texts] == [
        True,
        True,
        False,
        None,
        None,
    ]


def test_what_is_known_to_be_a_time_is_not_matched_again() -> None:
    texts = ["2026-03-01 12:00Z", "2026-03-01 12:00+01", "2026-03-01 12:00", "2026-03-01"]
    for read in ("true", "false"):
        told = [value(times.aware(text_literal(text), read)) for text in texts]
        assert told == [True, True, False, None]
