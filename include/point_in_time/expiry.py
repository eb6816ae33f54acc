"""When a feature row has expired: one rule for the join, the frames, the online rows and the node.

A row is as old as it lags behind the newest `as_of` at or before the moment asked about, not behind
the clock: features come once a period, so within a period nothing grows older. Nothing heavy is
imported here: the node reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from include.config.durations import midnight, next_period_start, period_start

if TYPE_CHECKING:
    from include.config.use_case import UseCase

# An entity is online until its newest row is older than so many times its view's ttl.
REMEMBERED = 4


@dataclass(frozen=True, slots=True)
class Calendar:
    """When the partitions of a use case end: what a moment's newest `as_of` follows from."""

    cadence: str
    cut_off: timedelta
    first: date
    last: date | None

    @classmethod
    def of(cls, use_case: UseCase) -> Calendar:
        """Return the calendar of a use case."""
        return cls(
            use_case.cadence, use_case.cut_off, use_case.history.first, use_case.history.last
        )

    @classmethod
    def from_text(cls, text: str) -> Calendar:
        """Read what `text` wrote."""
        plain = json.loads(text)
        last = None if plain["last"] is None else date.fromisoformat(plain["last"])
        return cls(
            plain["cadence"],
            timedelta(microseconds=plain["cut_off"]),
            date.fromisoformat(plain["first"]),
            last,
        )

    @property
    def text(self) -> str:
        """The calendar as text, for the tag of a feature view."""
        last = None if self.last is None else self.last.isoformat()
        plain = {"cadence": self.cadence, "cut_off": self.cut_off // timedelta(microseconds=1)}
        return json.dumps({**plain, "first": self.first.isoformat(), "last": last}, sort_keys=True)

    def newest(self, day: date) -> datetime | None:
        """Return the newest `as_of` for the moments of a day, or None before the first.

        They are those that lie on `day` when `cut_off` is taken off.
        """
        start = period_start(self.cadence, day)
        if start <= period_start(self.cadence, self.first):
            return None
        if self.last is not None:
            last_start = period_start(self.cadence, self.last)
            start = min(start, next_period_start(self.cadence, last_start))
        return midnight(start) + self.cut_off

    def horizon(self, moment: datetime) -> datetime:
        """Return the newest `as_of` at or before a moment; before the first, the moment itself."""
        return self.newest((moment - self.cut_off).astimezone(UTC).date()) or moment


def is_expired(age: int, ttl: int) -> bool:
    """Tell whether a row of that age (behind the horizon) outlived its ttl; in microseconds."""
    return age > ttl


def is_forgotten(ages: Mapping[str, int], ttls: Mapping[str, int]) -> bool:
    """Tell whether an entity counts as unknown, since the newest row of each view is too old.

    Both are by view, in microseconds.
    """
    return all(age > REMEMBERED * ttls[view] for view, age in ages.items())
