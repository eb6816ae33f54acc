"""Partitions: periods, their keys, their arrival intervals and their `as_of`.

No clock is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from include.config.durations import midnight, next_period_start, period_start
from include.config.use_case import UseCase
from include.config.use_case_sources import History
from include.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Period:
    """A partition: rows that arrive in `[arrival_start, as_of)` belong to it. All times are UTC."""

    key: str
    start: datetime
    end: datetime
    arrival_start: datetime
    as_of: datetime


def period(use_case: UseCase, key: str) -> Period:
    """Return the period of a key.

    Raises:
        ConfigError: the key is no date, lies inside a longer period, or outside the use case's
            history.
    """
    try:
        day = date.fromisoformat(key)
        # Python reads more forms than the one that keys are written in: 20250101, 2025-W01-3.
        if day.isoformat() != key:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{key!r} is no partition key; write the period's first day as YYYY-MM-DD"
        ) from None
    first = _floor(use_case, day)
    if first != day:
        raise ConfigError(
            f"{key} lies inside a {use_case.cadence}; the key of its partition is {first}"
        )
    history = use_case.history
    if not within(history, key):
        until = history.last or "now"
        raise ConfigError(
            f"partition {key} of {use_case.name} is outside its history ({history.first} to "
            f"{until})"
        )
    try:
        return _period(use_case, day)
    except OverflowError:
        raise ConfigError(
            f"partition {key} of {use_case.name} ends after the calendar does; name an earlier one"
        ) from None


def within(history: History | None, key: str) -> bool:
    """Tell whether a key lies within a history (None: always)."""
    day = date.fromisoformat(key)
    return history is None or (
        history.first <= day and (history.last is None or day <= history.last)
    )


def key_of(use_case: UseCase, moment: datetime) -> str:
    """Return the key of the partition in whose arrival interval a moment (UTC) lies.

    It may be a key outside the history.
    """
    return _floor(use_case, (moment - use_case.cut_off).date()).isoformat()


def between(use_case: UseCase, first: str, last: str) -> list[str]:
    """Return the keys from `first` to `last`, both included."""
    day, end = (date.fromisoformat(period(use_case, key).key) for key in (first, last))
    keys = []
    while day <= end:
        keys.append(day.isoformat())
        day = _next(use_case, day)
    return keys


def lookback(use_case: UseCase, key: str, span: timedelta) -> list[str]:
    """Return the keys whose arrival interval touches the last `span` before the `as_of` of a key.

    Keys before the history are left out.
    """
    as_of, first = period(use_case, key).as_of, use_case.history.first
    # A span of centuries would leave Python's calendar, so none is longer than the history.
    since_first = as_of - midnight(first) - use_case.cut_off
    earliest = max(key_of(use_case, as_of - min(span, since_first)), first.isoformat())
    return between(use_case, min(earliest, key), key)


def training_lookback(use_case: UseCase, key: str) -> list[str]:
    """Return the partitions whose labels and features a training on `key` can need.

    Without a window that is all of them. A ttl counts from the newest `as_of` before the decision,
    so the oldest decision of the window reaches up to a period further back than window and ttl
    together.
    """
    window = use_case.training.window
    if window is None:
        return between(use_case, use_case.history.first.isoformat(), key)
    longest = max(view.ttl for view in use_case.features.values())
    longest_period = timedelta(days={"day": 1, "week": 7, "month": 31}[use_case.cadence])
    return lookback(use_case, key, window + longest + max(use_case.label.delay, longest_period))


def earlier(use_case: UseCase, key: str, steps: int = 1) -> str | None:
    """Return the key so many partitions before `key`, or None where the history begins later."""
    day = date.fromisoformat(key)
    for _ in range(steps):
        day = _floor(use_case, day - timedelta(days=1))
    return day.isoformat() if within(use_case.history, day.isoformat()) else None


def key_within(use_case: UseCase, day: date) -> str:
    """Return the key of the period in which a day lies."""
    return _floor(use_case, day).isoformat()


def following(use_case: UseCase, earlier_period: Period) -> Period:
    """Return the period after another one, also beyond the end of the history."""
    return _period(use_case, _next(use_case, earlier_period.start.date()))


def after(use_case: UseCase, key: str) -> str:
    """Return the key after `key`, also outside the history."""
    return _next(use_case, date.fromisoformat(key)).isoformat()


def newest_complete(use_case: UseCase, now: datetime) -> str | None:
    """Return the newest key whose `as_of` has passed at `now`, at most `history.last`.

    None: the first is not complete yet.
    """
    day = _floor(use_case, now.date())
    while _period(use_case, day).as_of > now:
        day = _floor(use_case, day - timedelta(days=1))
    if use_case.history.last is not None:
        day = min(day, _floor(use_case, use_case.history.last))
    return day.isoformat() if day >= use_case.history.first else None


def _period(use_case: UseCase, day: date) -> Period:
    start, end = midnight(day), midnight(_next(use_case, day))
    return Period(day.isoformat(), start, end, start + use_case.cut_off, end + use_case.cut_off)


def _floor(use_case: UseCase, day: date) -> date:
    return period_start(use_case.cadence, day)


def _next(use_case: UseCase, day: date) -> date:
    return next_period_start(use_case.cadence, day)
