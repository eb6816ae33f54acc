"""Periods of the calendar by which a page shows decisions: as few as can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UNITS = ("day", "week", "month", "quarter", "year")
MOST = 14  # periods; of more years than that the newest

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Periods:
    """Periods one after another, of which each has a decision; none where there is no time."""

    unit: str
    starts: tuple[date, ...]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def names(self) -> list[str]:
        """How people call the periods: the first day, or a part of it that is enough."""
        if self.unit == "quarter":
            return [f"{day.year}-Q{(day.month + 2) // 3}" for day in self.starts]
        length = {"month": 7, "year": 4}.get(self.unit, 10)
        return [day.isoformat()[:length] for day in self.starts]

    @property
    def short_names(self) -> list[str]:
        """The names without what all of them have in common: the year of days and weeks."""
        if self.unit in ("day", "week") and len({day.year for day in self.starts}) == 1:
            return [f"{day.day} {MONTHS[day.month - 1]}" for day in self.starts]
        return self.names

    def place(self, moments: pa.ChunkedArray) -> Places:
        """Return for each moment the place of its period; -1 for one that is in none of them."""
        if not self.starts:
            return np.full(len(moments), -1, dtype=np.int64)
        days = _first_days(moments, self.unit)
        starts = np.array(self.starts, dtype="datetime64[D]")
        found = np.searchsorted(starts, days).clip(0, len(starts) - 1)
        return np.where(starts[found] == days, found, -1).astype(np.int64)


def divide(moments: pa.ChunkedArray) -> Periods:
    """Return the periods of moments, of the shortest unit that gives few enough.

    There are none where all moments are one: a table without a time.
    """
    if len(moments) == 0 or pc.count_distinct(moments).as_py() == 1:
        return Periods(UNITS[0], ())
    unit, starts = UNITS[0], np.empty(0, dtype="datetime64[D]")
    for unit in UNITS:
        starts = np.unique(_first_days(moments, unit))
        if len(starts) <= MOST:
            break
    newest: Sequence[date] = starts[-MOST:].tolist()
    return Periods(unit, tuple(newest))


def _first_days(moments: pa.ChunkedArray, unit: str) -> NDArray[np.datetime64]:
    """Return the first day (UTC) of the period of each moment."""
    floors = pc.floor_temporal(moments, unit=unit).cast(pa.timestamp("us"))
    return np.asarray(floors.to_numpy(), dtype="datetime64[D]")
