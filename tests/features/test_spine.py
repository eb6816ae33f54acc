"""Spines: mature labels as they were known at an `as_of`, and what is counted beside them."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.features.spine import Spine, build_spine
from tests.builders.shop import DAY, HOUR, T0, US, Shop

DELAY = 5 * DAY
AS_OF = T0 + 20 * DAY


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def taken(
    shop: Shop, as_of: datetime = AS_OF
) -> tuple[list[tuple[Any, ...]], tuple[int, int, int]]:
    found = build_spine(shop.lake, shop.use_case, as_of)
    rows = [tuple(row.values()) for row in found.rows.to_pylist()]
    return rows, (found.immature, found.censored, found.restated)


def test_no_labels_make_an_empty_spine(shop: Shop) -> None:
    assert taken(shop) == ([], (0, 0, 0))
    assert build_spine(shop.lake, shop.use_case, AS_OF).censored_share == 0


@pytest.mark.parametrize(("shift", "mature"), [(-US, True), (0 * US, False), (US, False)])
def test_a_row_is_mature_strictly_after_its_delay(
    shop: Shop, shift: timedelta, mature: bool
) -> None:
    """An outcome that is known early does not make its row mature early."""
    decision = AS_OF - DELAY + shift
    shop.label(15, (1, decision, decision + HOUR, decision + HOUR, 1.0))
    rows, counts = taken(shop)
    assert (len(rows), counts) == ((1, (0, 0, 0)) if mature else (0, (1, 0, 0)))


@pytest.mark.parametrize(
    ("label_time", "created", "known"),
    [
        (-US, -US, True),
        (0 * US, -US, False),
        (-US, 0 * US, None),
        (US, -US, False),
        (-DAY, -US, True),
    ],
)
def test_an_outcome_is_known_at_the_later_of_its_two_times(
    shop: Shop, label_time: timedelta, created: timedelta, known: bool | None
) -> None:
    """A row whose outcome is dated later is a decision without one; past its delay censored."""
    shop.label(19, (1, T0 + DAY, AS_OF + label_time, AS_OF + created, 1.0))
    rows, counts = taken(shop)
    assert (len(rows), counts) == {
        True: (1, (0, 0, 0)),
        False: (0, (0, 1, 0)),
        None: (0, (0, 0, 0)),
    }[known]


def test_the_newest_restatement_known_before_as_of_counts(shop: Shop) -> None:
    decision = T0 + DAY
    shop.label(3, (1, decision, T0 + 3 * DAY, T0 + 3 * DAY, 0.0))
    shop.label(8, (1, decision, T0 + 3 * DAY, T0 + 8 * DAY, 1.0))
    shop.label(21, (1, decision, T0 + 3 * DAY, T0 + 21 * DAY, 0.0))
    assert taken(shop, T0 + 7 * DAY) == ([(1, decision, T0 + 3 * DAY, 0.0)], (0, 0, 0))
    assert taken(shop) == ([(1, decision, T0 + 3 * DAY, 1.0)], (0, 0, 1))
    assert taken(shop, T0 + 22 * DAY)[0][0][3] == 0.0


def test_an_open_decision_is_immature_then_censored_then_known(shop: Shop) -> None:
    decision = T0 + DAY
    shop.label(1, (1, decision, None, decision, None))
    shop.label(10, (1, decision, T0 + 10 * DAY, T0 + 10 * DAY, 1.0))
    assert taken(shop, T0 + 4 * DAY) == ([], (1, 0, 0))
    assert taken(shop, T0 + 8 * DAY) == ([], (0, 1, 0))
    assert taken(shop) == ([(1, decision, T0 + 10 * DAY, 1.0)], (0, 0, 0))
    shop.label(12, (1, decision, None, T0 + 12 * DAY, None))  # the outcome is withdrawn
    assert taken(shop) == ([], (0, 1, 0))


def test_a_restatement_whose_outcome_is_dated_later_hides_nothing(shop: Shop) -> None:
    shop.label(3, (1, T0 + DAY, T0 + 3 * DAY, T0 + 3 * DAY, 0.0))
    shop.label(8, (1, T0 + DAY, AS_OF + DAY, T0 + 8 * DAY, 1.0))
    assert taken(shop)[0] == [(1, T0 + DAY, T0 + 3 * DAY, 0.0)]


def test_a_pinned_version_is_read(shop: Shop) -> None:
    shop.label(3, (1, T0 + DAY, T0 + 3 * DAY, T0 + 3 * DAY, 0.0))
    version = shop.lake.version("shop/labels")
    shop.label(3, (1, T0 + DAY, T0 + 3 * DAY, T0 + 3 * DAY, 1.0))
    assert build_spine(shop.lake, shop.use_case, AS_OF, version=version).rows[
        "label"
    ].to_pylist() == [0.0]
    assert build_spine(shop.lake, shop.use_case, AS_OF).rows["label"].to_pylist() == [1.0]


def brute_force(
    everything: list[tuple[Any, ...]], as_of: datetime
) -> tuple[list[tuple[Any, ...]], tuple[int, int, int]]:
    decisions: dict[tuple[datetime, int], list[tuple[Any, ...]]] = {}
    for row in everything:
        if row[1] < as_of and row[3] < as_of:
            decisions.setdefault((row[1], row[0]), []).append(row)
    rows, immature, censored, restated = [], 0, 0, 0
    for (decision, entity), versions in sorted(decisions.items()):
        if not decision + DELAY < as_of:
            immature += 1
            continue
        usable = [row for row in versions if row[4] is None or row[2] < as_of]
        newest = max(
            usable,
            key=lambda row: (row[3], row[4] is not None, row[2] or row[3], row[4] or 0),
            default=None,
        )
        if newest is None or newest[4] is None:
            censored += 1
            continue
        rows.append((entity, decision, newest[2], newest[4]))
        restated += sum(row[4] is not None for row in usable) > 1
    return rows, (immature, censored, restated)


def test_spine_equals_brute_force(shop: Shop) -> None:
    draw = random.Random(3)
    everything = []
    for day in range(25):
        rows = []
        for _ in range(40):
            decision = T0 + draw.randrange(0, day + 1) * DAY
            created = T0 + day * DAY + draw.randrange(0, 24) * HOUR
            label = draw.choice([None, 0.0, 1.0])
            outcome = None if label is None else created + draw.choice([-2, 0, 3]) * DAY
            rows.append((draw.randrange(6), decision, outcome, created, label))
        shop.label(day, *rows)
        everything += rows
    for as_of in (T0 + 6 * DAY, AS_OF - 3 * HOUR, AS_OF):
        assert taken(shop, as_of) == brute_force(everything, as_of)


def test_censored_share() -> None:

    mature = pa.table(
        {"__censored": [False, True, False, False], "__restated": [True, False, True, False]}
    )
    spine = Spine(pa.table({"x": [1, 2, 3]}), mature, immature=9)
    assert (spine.censored, spine.restated, spine.censored_share) == (1, 2, 0.25)


def test_decisions_before_the_window_are_in_no_count(shop: Shop) -> None:
    for day in range(6):
        shop.label(
            day, (1, T0 + day * DAY, T0 + day * DAY, T0 + day * DAY, 1.0 if day % 2 else None)
        )
    as_of = T0 + 5 * DAY + DELAY
    whole = build_spine(shop.lake, shop.use_case, as_of)
    window = build_spine(shop.lake, shop.use_case, as_of, since=T0 + 3 * DAY)
    assert (len(whole.rows), whole.censored) == (2, 3)
    assert (len(window.rows), window.censored, window.immature) == (1, 1, whole.immature)
    assert window.mature["event_timestamp"].to_pylist() == [T0 + 3 * DAY, T0 + 4 * DAY]
