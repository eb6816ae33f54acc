"""What is said of the columns of a frame, counted once more by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.onboarding import time_periods
from include.onboarding.frame_profile import (
    BINS,
    MISSING,
    NAMED,
    TOP,
    ColumnProfile,
    FrameProfile,
    profile_frame,
    shown_value,
)

ROWS = 400
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
# In pairs: scores of texts are learnt on every second row.
LABELS = [float(n // 2 % 2) for n in range(ROWS)]


def profile(columns: dict[str, pa.Array], step: timedelta = timedelta(hours=6)) -> FrameProfile:
    """Return the profile of a frame of these features."""
    times = [FIRST + n * step for n in range(ROWS)]
    frame = pa.table(
        {
            "event_timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
            "label": LABELS,
            **columns,
        }
    )
    kinds = dict.fromkeys(columns, "any")
    return profile_frame(frame, kinds, time_periods.divide(frame.column("event_timestamp")))


def of(values: list[Any], kind: pa.DataType | None = None) -> ColumnProfile:
    """Return the profile of one column."""
    (column,) = profile({"x": pa.array(values, kind)}).columns
    return column


def counted(column: ColumnProfile) -> dict[str, tuple[int, int]]:
    """Return the rows of outcome 0 and 1 by bar, each bar once."""
    assert len({bar.name for bar in column.bars}) == len(column.bars)
    return {bar.name: (bar.zeros, bar.ones) for bar in column.bars}


def test_every_row_is_in_one_bar_whatever_the_number() -> None:
    rng = np.random.default_rng(1)
    values = [*rng.normal(size=ROWS - 5).tolist(), None, math.nan, math.inf, -math.inf, 1.7e308]
    column = of(values)
    assert sum(bar.zeros + bar.ones for bar in column.bars) == ROWS
    assert sum(counted(column)[MISSING]) == 2
    assert column.missing == 2 / ROWS
    assert len(column.edges) == BINS + 1
    assert column.bars[0].name.startswith("up to ")
    assert column.bars[BINS - 1].name.startswith("from ")


@pytest.mark.parametrize(
    "values",
    [
        [1.7e308 * (-1) ** n * (1 + n / 9e9) for n in range(ROWS)],
        [float(n < 3) + n / 1e300 for n in range(ROWS)],
        [5.0 if n > 20 else 5.0 + n for n in range(ROWS)],
        [None] * (ROWS - 20) + [float(n) for n in range(20)],
    ],
    ids=["huge", "tiny", "one value", "rare"],
)
def test_awkward_numbers_have_bars_too(values: list[float | None]) -> None:
    column = of(values, pa.float64())
    assert sum(bar.zeros + bar.ones for bar in column.bars) == ROWS
    assert all(math.isfinite(edge) for edge in column.edges)


@pytest.mark.parametrize("first", [2**53 - 3, 2**62, -(2**63)])
def test_whole_numbers_beyond_doubles_have_bars_too(first: int) -> None:
    column = of([first + n % 20 for n in range(ROWS)], pa.int64())
    assert sum(bar.zeros + bar.ones for bar in column.bars) == ROWS


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_frame_of_one_class_is_profiled_too(
    label: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LABELS", [label] * ROWS)
    columns = {"a": pa.array(["x"] * ROWS), "b": pa.array([n / 3 for n in range(ROWS)])}
    assert [column.auc for column in profile(columns).columns] == [0.5, 0.5]


def test_whole_numbers_have_a_bar_each_and_open_ends() -> None:
    column = of([min(n % 15, 13) if n else 1_000 for n in range(ROWS)], pa.int64())
    names = [bar.name for bar in column.bars]
    assert names == [*map(str, range(13)), "from 13"]
    assert sum(sum(pair) for pair in counted(column).values()) == ROWS


def test_categories_beyond_the_most_frequent_are_one_bar() -> None:
    values = [None if n % 40 == 0 else f"v{n % 40:02}" for n in range(ROWS)]
    column = of(values)
    bars = counted(column)
    assert list(bars) == [*(f"v{n:02}" for n in range(1, TOP + 1)), "30 other values", MISSING]
    assert bars["v01"] == (sum(1 - LABELS[n] for n in range(1, ROWS, 40)), sum(LABELS[1::40]))
    assert column.distinct == 39
    assert not column.edges
    # Ten values are ten bars: `1 other value` would take the place of the value itself.
    assert len(of([f"v{n % 10}" for n in range(ROWS)]).bars) == 10


def test_values_that_begin_alike_stay_apart() -> None:
    names = list(counted(of(["a" * 50 + str(n % 3) for n in range(ROWS)])))
    assert len(names) == 3
    assert names[1].endswith("(2)")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\x1b[31m\n", "a\ufffd[31m\ufffd"),
        ("\u202eabc", "\ufffdabc"),
        ("", "(empty)"),
        ("  ", "2 blanks"),
        (0.1 + 0.2, "0.3"),
        ("x" * 99, "x" * (NAMED - 1) + "\u2026"),
        (False, "False"),
    ],
)
def test_a_value_is_shown_short_and_as_it_is(value: object, shown: str) -> None:
    assert shown_value(value) == shown


def test_a_feature_that_turns_round_is_seen_by_period() -> None:
    """One rule for all periods: an AUC in either direction would hide that it no longer holds."""
    turned = [label if n < 300 else 1 - label for n, label in enumerate(LABELS)]
    answer = profile({"x": pa.array(turned)}, timedelta(hours=10))
    (column,) = answer.columns
    assert answer.periods.unit == "month"
    assert column.auc == 0.75
    known = [value for value in column.auc_by_period if value is not None]
    assert known[0] == 1.0
    assert known[-1] < 0.2
    # The last month has too few rows of a class.
    assert len(known) == len(answer.periods) or column.auc_by_period[-1] is None


def test_gaps_are_counted_by_period() -> None:
    answer = profile({"x": pa.array([None if n < 4 * 31 else "a" for n in range(ROWS)])})
    (column,) = answer.columns
    assert column.missing_by_period[0] == 1.0
    assert column.missing_by_period[-1] == 0.0
    assert column.missing == 4 * 31 / ROWS


def test_rows_of_one_moment_have_no_periods() -> None:
    answer = profile({"x": pa.array(LABELS)}, timedelta(0))
    assert answer.columns[0].auc_by_period == ()
    assert answer.columns[0].auc == 1.0
