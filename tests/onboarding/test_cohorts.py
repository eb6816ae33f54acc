"""When outcomes were known, by cohort, counted once more by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from include.onboarding import cohorts
from tests.builders.shop import DAY, T0, Shop

TIME = pa.timestamp("us", tz="UTC")


def labelled(times: list[datetime], labels: list[float]) -> pa.Table:
    """Return mature rows as the spine has them."""
    return pa.table({"event_timestamp": pa.array(times, TIME), "label": pa.array(labels)})


def test_what_was_known_after_how_many_days(tmp_path: Path) -> None:
    """A correction does not count as the first outcome, and an outcome of tomorrow is unknown."""
    shop = Shop(tmp_path)
    known = [
        (1, T0, T0 + 2 * DAY, T0 + 2 * DAY, 1.0),
        (1, T0, T0 + 4 * DAY, T0 + 4 * DAY, 0.0),
        (2, T0, None, T0, None),
        (2, T0, T0 + DAY, T0 + 3 * DAY, 0.0),
        (3, T0 + 8 * DAY, None, T0 + 8 * DAY, None),
        (4, T0 + 8 * DAY, T0 + 30 * DAY, T0 + 8 * DAY, 1.0),
        (5, T0 - DAY, T0, T0, 1.0),
    ]
    shop.label(0, *known)
    decided = cohorts.first_outcomes(
        shop.use_case, shop.lake, since=T0, until=T0 + 10 * DAY
    ).sort_by("lag")
    assert decided.column("lag").to_pylist() == [2.0, 3.0, None, None]
    answer = cohorts.build_cohorts(
        shop.use_case, decided, labelled([T0, T0], [0.0, 0.0]), T0 + 10 * DAY
    )
    assert answer.days == (0.0, 1.0, 2.0, 3.0, 5.0)
    assert answer.delay == 5.0
    # Of the mature ones; by period a lag counts that all of its decisions have lived to see.
    assert answer.known == (0.0, 0.0, 0.5, 1.0, 1.0)
    assert answer.known_by_period == ((0.0, 0.0, 0.5, 1.0, 1.0), (0.0, 0.0, None, None, None))
    first, second = answer.counts
    assert (first.mature, first.ones, first.censored, first.immature) == (2, 0, 0, 0)
    assert (second.mature, second.ones, second.censored, second.immature) == (0, 0, 0, 2)


@pytest.mark.parametrize("latest", [0.0, 4.0, 90.0, 3_650.0, 1e5])
def test_few_lags_are_shown_and_the_delay_among_them(tmp_path: Path, latest: float) -> None:
    shop = Shop(tmp_path)
    end = datetime(2325, 1, 1, tzinfo=UTC)
    decided = pa.table(
        {"event_timestamp": pa.array([T0, T0 + timedelta(hours=1)], TIME), "lag": [latest, None]}
    )
    answer = cohorts.build_cohorts(shop.use_case, decided, labelled([], []), end)
    assert len(answer.days) <= cohorts.MOST
    assert answer.delay in answer.days
    assert list(answer.days) == sorted(set(answer.days))
    (count,) = answer.counts
    assert count.censored == 2


def test_of_many_lags_those_are_shown_at_which_outcomes_begin_to_come(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    lags = [float(day) for day in range(600, 1800, 2)]
    times = pa.array([T0] * len(lags), TIME)
    decided = pa.table({"event_timestamp": times, "lag": lags})
    days = cohorts.build_cohorts(shop.use_case, decided, labelled([], []), T0 + 4_000 * DAY).days
    assert {365.0, 730.0} <= {*days}
    assert (days[0], len(days)) == (0.0, cohorts.MOST)


def test_without_a_time_there_is_no_cohort_but_the_whole(tmp_path: Path) -> None:
    decided = pa.table({"event_timestamp": pa.array([T0] * 4, TIME), "lag": [0.0, 0.0, 1.0, 2.0]})
    answer = cohorts.build_cohorts(
        Shop(tmp_path).use_case, decided, labelled([T0] * 4, [0.0, 1.0, 0.0, 1.0]), T0 + 99 * DAY
    )
    assert answer.counts == ()
    assert answer.known[:3] == (0.5, 0.75, 1.0)
