"""When the outcomes of decisions were known: over all of them, and by the period of the decision.

A cohort is the decisions of one period. What is shown of it is what had been known at `as_of`; a
lag that its youngest decision has not lived to see is not shown at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.lake.sql import connect, quote
from include.lake.tables import Lake
from include.onboarding.time_periods import Periods, divide
from include.point_in_time.curated import EVENT, label_schema, label_table
from include.point_in_time.sql_parts import timestamp_literal

DAY = timedelta(days=1)
# Days after a decision at which it is asked whether its outcome is known; label.delay comes in.
GRID = (0, 1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60, 90, 120, 180, 270, 365, 730, 1095, 1825, 3650)
MOST = 9  # columns of the table

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Cohorts:
    """What became of decisions: `counts` by period, and how many outcomes were known by when.

    `days` are lags in days, `delay` is label.delay among them. `known` has for each lag the share
    of the mature decisions, `known_by_period` that of each period's, None where one is too young.
    """

    periods: Periods
    days: tuple[float, ...]
    delay: float
    known: tuple[float | None, ...]
    known_by_period: tuple[tuple[float | None, ...], ...]
    counts: tuple[PeriodCount, ...]


@dataclass(frozen=True)
class PeriodCount:
    """The decisions of a period: with an outcome (`ones` of them 1), censored, and too young."""

    mature: int
    ones: int
    censored: int
    immature: int


def first_outcomes(use_case: UseCase, lake: Lake, *, since: datetime, until: datetime) -> pa.Table:
    """Return the decisions of a span, with the lag in days of the first outcome known by its end.

    Columns: event_timestamp, lag (null where no outcome was known yet).
    """
    key, now = quote(use_case.entity.key), timestamp_literal(until)
    known = "greatest(label_timestamp, created_timestamp)"
    with connect() as con:
        lake.scan(con, "labels", label_table(lake, use_case), schema=label_schema(use_case))
        return con.sql(
            f"SELECT {EVENT}, min(epoch_us({known}) - epoch_us({EVENT})) FILTER "
            f"(label IS NOT NULL AND {known} < {now}) / 86.4e9 AS lag FROM labels "
            f"WHERE {EVENT} >= {timestamp_literal(since)} AND {EVENT} < {now} "
            f"AND created_timestamp < {now} GROUP BY {key}, {EVENT}"
        ).to_arrow_table()


def build_cohorts(use_case: UseCase, decided: pa.Table, rows: pa.Table, as_of: datetime) -> Cohorts:
    """Return the cohorts of `decided` (see `first_outcomes`); `rows` are mature, with labels."""
    delay, periods = use_case.label.delay / DAY, divide(decided.column(EVENT))
    lags = _doubles(decided.column("lag"))
    ages = _ages(decided, as_of)
    days = _grid(delay, lags)
    places, labelled = periods.place(decided.column(EVENT)), periods.place(rows.column(EVENT))
    labels = _doubles(rows.column("label"))
    by_period, counts = [], []
    for place in range(len(periods)):
        here, mine = places == place, labelled == place
        youngest = ages[here].min(initial=np.inf)
        by_period.append(tuple(_share(lags[here], day) if youngest > day else None for day in days))
        immature = int((ages[here] <= delay).sum())
        mature = int(mine.sum())
        counts.append(
            PeriodCount(
                mature=mature,
                ones=int(labels[mine].sum()),
                censored=max(0, int(here.sum()) - immature - mature),
                immature=immature,
            )
        )
    return Cohorts(
        periods,
        days,
        delay,
        # Of the mature alone: among the others those whose outcome is known may be the first seen.
        tuple(_share(lags[ages > max(day, delay)], day) for day in days),
        tuple(by_period),
        tuple(counts),
    )


def _grid(delay: float, lags: Numbers) -> tuple[float, ...]:
    """Return the lags to show: up to the latest outcome, label.delay among them.

    Of many those stay without which a line between the others would say most else; the first and
    the last stay.
    """
    latest = float(np.nanmax(lags)) if np.isfinite(lags).any() else delay
    longest = max(delay, latest)
    days = sorted({*(float(day) for day in GRID if day < longest), delay})
    while len(days) > MOST:
        shares = [_share(lags, day) or 0.0 for day in days]

        def bend(place: int, shares: list[float] = shares) -> float:
            """Return how far a share lies off the line between its neighbours."""
            ends = [place - 1, place + 1]
            line = np.interp(
                days[place], [days[end] for end in ends], [shares[end] for end in ends]
            )
            return abs(shares[place] - float(line))

        inner = [place for place in range(1, len(days) - 1) if days[place] != delay]
        del days[min(inner, key=lambda place: (bend(place), place))]
    return tuple(days)


def _share(lags: Numbers, day: float) -> float | None:
    """Return the share of decisions whose outcome was known within so many days."""
    return float((lags <= day).mean()) if len(lags) else None


def _ages(decided: pa.Table, as_of: datetime) -> Numbers:
    """Return how many days before `as_of` each decision was made."""
    moments = decided.column(EVENT).cast(pa.int64()).to_numpy()
    return np.asarray((as_of.timestamp() * 1e6 - moments) / 86.4e9, dtype=np.float64)


def _doubles(column: pa.ChunkedArray) -> Numbers:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
