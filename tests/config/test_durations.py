"""Durations: what is one, what is refused, and that they are written as they are read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.config.durations import format_duration, lag_after_event, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30d", timedelta(days=30)),
        ("2h", timedelta(hours=2)),
        ("1us", timedelta(microseconds=1)),
        ("0s", timedelta(0)),
        (" 1 w ", timedelta(7)),
    ],
)
def test_durations_are_read(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text", ["", "d", "-1d", "1.5d", "1 month", "1d2h", "P1D", "1e3d", None, "9" * 30 + "d"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1w", "8d", "25h", "61m", "59s", "1500ms", "1001us", "0s"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


def test_an_assumed_arrival_is_told_from_a_column() -> None:
    assert lag_after_event(" event +  3d ") == timedelta(days=3)
    assert lag_after_event("event_timestamp") is None
    with pytest.raises(ValueError, match="duration"):
        lag_after_event("event + soon")
