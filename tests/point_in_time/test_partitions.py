"""Periods and keys: every moment belongs to exactly one partition.

At every boundary, in every cadence (faults 32, 46).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from include.config import use_case
from include.errors import ConfigError
from include.point_in_time import partitions

US = timedelta(microseconds=1)


def case(
    cadence: str = "day", cut_off: str = "0s", first: str = "2024-01-01", last: str | None = None
) -> use_case.UseCase:
    return use_case.UseCase.model_validate(
        {
            "name": "shop",
            "cadence": cadence,
            "cut_off": cut_off,
            "history": {"first": first, "last": last},
            "entity": {"name": "customer", "key": "customer_id"},
            "sources": {
                "orders": {
                    "path": "x.csv",
                    "key": ["customer_id"],
                    "columns": {"customer_id": {"type": "int64"}},
                }
            },
            "label": {"sql": "select 1", "delay": "1d"},
            "features": {"spend": {"sql": "select 1", "columns": {"amount": "float64"}}},
        }
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cadence", "key", "end"),
    [
        ("day", "2024-02-28", "2024-02-29"),
        ("day", "2024-02-29", "2024-03-01"),  # leap day
        ("day", "2024-12-31", "2025-01-01"),  # year end
        ("day", "2024-03-31", "2024-04-01"),  # Europe changes its clocks
        ("day", "2024-11-03", "2024-11-04"),  # America does
        ("week", "2024-12-30", "2025-01-06"),
        ("month", "2024-02-01", "2024-03-01"),
        ("month", "2024-12-01", "2025-01-01"),
    ],
)
def test_a_period_runs_from_its_key_to_the_next(cadence: str, key: str, end: str) -> None:
    found = partitions.period(case(cadence), key)
    assert (found.key, found.start, found.end) == (key, utc(key), utc(end))
    assert found.as_of == found.end
    assert found.arrival_start == found.start


def test_the_cut_off_moves_arrival_and_as_of_but_not_the_key() -> None:
    found = partitions.period(case("month", "3d", first="2005-04-01"), "2005-09-01")
    assert found.arrival_start == utc("2005-09-04")
    assert found.as_of == utc("2005-10-04")


@pytest.mark.parametrize("cadence", ["day", "week", "month"])
@pytest.mark.parametrize("cut_off", ["0s", "2h", "3d"])
def test_each_moment_belongs_to_exactly_one_partition(cadence: str, cut_off: str) -> None:
    """Walk three years: intervals touch, and both sides of each boundary find their own key."""
    here = case(cadence, cut_off, first="2024-01-01")
    keys = partitions.between(
        here, "2024-01-01", "2026-12-28" if cadence == "week" else "2026-12-01"
    )
    periods = [partitions.period(here, key) for key in keys]
    assert len(set(keys)) == len(keys)
    for before, after in pairwise(periods):
        assert before.end == after.start
        assert before.as_of == after.arrival_start
        assert partitions.key_of(here, before.as_of - US) == before.key
        assert partitions.key_of(here, before.as_of) == after.key
        assert partitions.key_of(here, before.as_of + US) == after.key


@pytest.mark.parametrize(
    ("cadence", "days"), [("day", {1}), ("week", {7}), ("month", {28, 29, 30, 31})]
)
def test_one_partition_a_period_over_leap_years(cadence: str, days: set[int]) -> None:
    here = case(cadence)
    keys = partitions.between(
        here, "2024-01-01", "2028-01-03" if cadence == "week" else "2028-01-01"
    )
    lengths = {
        (partitions.period(here, key).end - partitions.period(here, key).start).days for key in keys
    }
    assert lengths == days
    assert len(keys) == {"day": 1462, "week": 210, "month": 49}[cadence]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "2024-1-5",
        "20240105",
        "2024-02-30",
        "2024-01-05T00:00",
        "2024-W01-1",
        "../2024-01-05",
        "2024-01-05\n",
        " 2024-01-05",
        "%32024-01-05",
    ],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(
        ConfigError, match="is no partition key; write the period's first day as YYYY-MM-DD"
    ):
        partitions.period(case(), key)


@pytest.mark.parametrize(
    ("cadence", "key", "right"),
    [
        ("month", "2024-02-29", "2024-02-01"),
        ("week", "2025-01-01", "2024-12-30"),
        ("week", "2024-01-07", "2024-01-01"),
    ],
)
def test_a_date_inside_a_period_is_refused_with_the_right_key(
    cadence: str, key: str, right: str
) -> None:
    with pytest.raises(
        ConfigError, match=f"{key} lies inside a {cadence}; the key of its partition is {right}"
    ):
        partitions.period(case(cadence), key)


def test_keys_outside_the_history_are_refused() -> None:
    here = case(first="2024-01-10", last="2024-01-20")
    for key in ("2024-01-09", "2024-01-21"):
        with pytest.raises(ConfigError, match=r"outside its history \(2024-01-10 to 2024-01-20\)"):
            partitions.period(here, key)
    assert [partitions.period(here, key).key for key in ("2024-01-10", "2024-01-20")] == [
        "2024-01-10",
        "2024-01-20",
    ]


def test_the_end_of_the_calendar_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="ends after the calendar does"):
        partitions.period(case(), "9999-12-31")
    assert partitions.period(case(cut_off="2h"), "9999-12-30").end == utc("9999-12-31")


def test_lookback_is_what_touches_the_span_clipped_at_the_first() -> None:
    here = case(first="2024-01-05")
    assert partitions.lookback(here, "2024-01-10", timedelta(days=3)) == [
        "2024-01-08",
        "2024-01-09",
        "2024-01-10",
    ]
    assert partitions.lookback(here, "2024-01-10", timedelta(days=3) + US)[0] == "2024-01-07"
    assert partitions.lookback(here, "2024-01-10", timedelta(days=900))[0] == "2024-01-05"
    assert partitions.lookback(here, "2024-01-10", timedelta(0)) == ["2024-01-10"]
    assert partitions.lookback(here, "2024-01-10", timedelta(days=10**8))[0] == "2024-01-05"


def test_lookback_counts_arrival_intervals() -> None:
    here = case("month", "3d", first="2005-04-01")
    assert partitions.lookback(here, "2005-09-01", timedelta(days=30)) == ["2005-09-01"]
    assert partitions.lookback(here, "2005-09-01", timedelta(days=31)) == [
        "2005-08-01",
        "2005-09-01",
    ]


def test_earlier_steps_back_and_stops_at_the_first() -> None:
    here = case("month", first="2024-01-01")
    assert partitions.earlier(here, "2024-03-01") == "2024-02-01"
    assert partitions.earlier(here, "2024-03-01", steps=2) == "2024-01-01"
    assert partitions.earlier(here, "2024-01-01") is None


@pytest.mark.parametrize(
    ("cadence", "cut_off", "now", "key"),
    [
        ("day", "0s", "2024-03-01T00:00:00", "2024-02-29"),
        ("day", "0s", "2024-02-29T23:59:59.999999", "2024-02-28"),
        ("day", "2h", "2024-03-01T01:59:59.999999", "2024-02-28"),
        ("day", "2h", "2024-03-01T02:00:00", "2024-02-29"),
        ("month", "3d", "2024-03-03T23:59:59", "2024-01-01"),
        ("month", "3d", "2024-03-04T00:00:00", "2024-02-01"),
        ("week", "0s", "2025-01-05T23:59:59", "2024-12-23"),
        ("week", "0s", "2025-01-06T00:00:00", "2024-12-30"),
    ],
)
def test_the_newest_complete_is_the_newest_whose_as_of_has_passed(
    cadence: str, cut_off: str, now: str, key: str
) -> None:
    assert partitions.newest_complete(case(cadence, cut_off), utc(now)) == key


def test_the_newest_complete_is_the_last_of_a_closed_history_and_none_before_the_first() -> None:
    closed = case(first="2024-01-01", last="2024-01-31")
    assert partitions.newest_complete(closed, utc("2030-01-01")) == "2024-01-31"
    assert partitions.newest_complete(closed, utc("2024-01-01T12:00")) is None
    assert partitions.newest_complete(closed, utc("2024-01-02")) == "2024-01-01"


def test_between_refuses_what_period_refuses_and_is_empty_backwards() -> None:
    with pytest.raises(ConfigError, match="the key of its partition is 2024-02-01"):
        partitions.between(case("month"), "2024-01-01", "2024-02-15")
    assert partitions.between(case(), "2024-01-02", "2024-01-01") == []
