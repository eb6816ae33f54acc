"""Periods of decisions: few enough to read, and none where there is no time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from include.onboarding import time_periods
from include.onboarding.time_periods import MOST

FIRST = datetime(2023, 12, 27, 23, 59, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")


def moments(count: int, step: timedelta) -> pa.ChunkedArray:
    """Return moments, `step` apart."""
    return pa.chunked_array([pa.array([FIRST + n * step for n in range(count)], TIME)])


@pytest.mark.parametrize(
    ("step", "unit", "name"),
    [
        (timedelta(hours=6), "day", "2023-12-27"),
        (timedelta(days=1), "week", "2023-12-25"),
        (timedelta(days=4), "month", "2023-12"),
        (timedelta(days=20), "quarter", "2023-Q4"),
        (timedelta(days=90), "year", "2023"),
    ],
)
def test_the_shortest_unit_that_gives_few_periods(step: timedelta, unit: str, name: str) -> None:
    column = moments(50, step)
    periods = time_periods.divide(column)
    assert periods.unit == unit
    assert 1 < len(periods) <= MOST
    assert periods.names[0] == name
    places = periods.place(column)
    assert places.tolist() == sorted(places)
    assert set(places) == set(range(len(periods)))


def test_of_more_years_than_can_be_read_the_newest_are_shown() -> None:
    column = moments(60, timedelta(days=366))
    periods = time_periods.divide(column)
    assert len(periods) == MOST
    assert sorted(set(periods.place(column))) == list(range(-1, MOST))


def test_one_moment_is_no_time() -> None:
    column = moments(9, timedelta(0))
    assert len(time_periods.divide(column)) == 0
    assert time_periods.divide(column).place(column).tolist() == [-1] * 9
    assert len(time_periods.divide(column.slice(0, 0))) == 0


def test_days_of_one_year_are_named_without_it() -> None:
    assert time_periods.divide(moments(3, timedelta(days=1))).short_names[-1] == "29 Dec"
    assert time_periods.divide(moments(9, timedelta(days=1))).short_names[-1] == "2024-01-04"
