"""Spines, training frames and entity frames: mature labels, features as known at the decision,
nothing from later.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.errors import MissingPartition
from include.features import feature_sets, frames
from include.features.feast_registry import transient_store
from include.features.feature_sets import FeatureSet, recorded
from include.features.frames import Spine
from include.lake.sql import TIMESTAMP
from include.pipeline import ranges
from tests.builders.shop import DAY, HOUR, T0, US, YAML, Shop, serve

DELAY = 5 * DAY
AS_OF = T0 + 20 * DAY


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def taken(
    shop: Shop, as_of: datetime = AS_OF
) -> tuple[list[tuple[Any, ...]], tuple[int, int, int]]:
    found = frames.spine(shop.lake, shop.use_case, as_of)
    rows = [tuple(row.values()) for row in found.rows.to_pylist()]
    return rows, (found.immature, found.censored, found.restated)


def test_no_labels_make_an_empty_spine(shop: Shop) -> None:
    assert taken(shop) == ([], (0, 0, 0))
    assert frames.spine(shop.lake, shop.use_case, AS_OF).censored_share == 0


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
    """A row that exists while its outcome is dated later is a decision without one: censored
    once past its delay.
    """
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
    assert frames.spine(shop.lake, shop.use_case, AS_OF, version=version).rows[
        "label"
    ].to_pylist() == [0.0]
    assert frames.spine(shop.lake, shop.use_case, AS_OF).rows["label"].to_pylist() == [1.0]


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


# frames


def days(shop: Shop, count: int, *, without: range = range(0)) -> None:
    """Let days arrive, and run all but some; what is unchanged is answered from the record."""
    for day in range(count):
        moment = T0 + day * DAY + HOUR
        shop.arrive(
            day, [(day, 1, 1.0 + day, moment, moment)], [(1 + day % 2, day, "web", moment, moment)]
        )
        shop.ask(day)
    keys = [shop.key(day) for day in range(count) if day not in without]
    assert {
        report.state
        for report in ranges.run_range("materialize_features", "shop", keys, settings=shop.settings)
    } == {"done"}


def test_a_training_frame_keeps_the_spine_and_sees_what_was_known_at_each_decision(
    shop: Shop,
) -> None:
    days(shop, 10)
    decisions = [T0 + 3 * DAY, T0 + 3 * DAY - US, T0 + 2 * DAY, T0 + 2 * DAY, T0, T0 + 30 * DAY]
    shop.label(
        10,
        *(
            (1, moment, T0 + 10 * DAY, T0 + 10 * DAY, float(n % 2))
            for n, moment in enumerate(decisions[:3])
        ),
    )
    shop.label(
        11,
        (2, T0 + 2 * DAY, T0 + 10 * DAY, T0 + 10 * DAY, 1.0),
        (9, T0, T0 + 10 * DAY, T0 + 10 * DAY, 1.0),
    )
    spine = frames.spine(shop.lake, shop.use_case, AS_OF)
    frame = frames.training_frame(
        shop.settings,
        shop.use_case,
        shop.feature_set,
        spine,
        frames.table_versions(shop.lake, shop.use_case, shop.feature_set),
        records=shop.records,
    )
    assert frame.select(spine.rows.column_names) == spine.rows
    assert frame.column_names == [*spine.rows.column_names, *shop.feature_set.feature_types]
    by_row = {
        (row["customer_id"], row["event_timestamp"]): (row["orders_5d"], row["pages"])
        for row in frame.to_pylist()
    }
    assert by_row == {
        (9, T0): (None, None),
        (1, T0 + 2 * DAY): (2, 0),
        (2, T0 + 2 * DAY): (None, 1),
        (1, T0 + 3 * DAY - US): (2, 2),
        (1, T0 + 3 * DAY): (3, 2),
    }


def test_an_empty_spine_gives_an_empty_frame_with_all_columns(shop: Shop) -> None:
    days(shop, 1)
    spine = frames.spine(shop.lake, shop.use_case, AS_OF)
    frame = frames.training_frame(
        shop.settings, shop.use_case, shop.feature_set, spine, {}, records=shop.records
    )
    assert (len(frame), frame.column_names[-1]) == (0, "device")


def frame_of(shop: Shop, *decisions: datetime, feature_set: FeatureSet | None = None) -> pa.Table:
    moments = pa.array(decisions, TIMESTAMP)
    asked = pa.table({"customer_id": pa.array([1] * len(decisions)), "event_timestamp": moments})
    return frames.training_frame(
        shop.settings,
        shop.use_case,
        feature_set or shop.feature_set,
        asked,
        {},
        records=shop.records,
    )


def test_a_frame_refuses_partitions_that_do_not_hold_a_view(shop: Shop) -> None:
    """A partition without features is missing, not null: neither where it was never computed nor
    in another version.
    """
    days(shop, 12, without=range(9, 10))
    assert frame_of(shop, T0 + 4 * DAY)["orders_5d"].to_pylist() == [4]
    with pytest.raises(
        MissingPartition,
        match=r"view spending in version .* 1 of 6 partitions.* 2025-01-10.*load-history shop",
    ) as caught:
        frame_of(shop, T0 + 12 * DAY - US)
    assert caught.value.keys == (shop.key(9),)
    shop.run(9)
    assert frame_of(shop, T0 + 12 * DAY - US)["pages"].to_pylist() == [10]
    old = shop.feature_set
    shop.define(YAML.replace("sum(amount)", "2 * sum(amount)"))
    shop.run(11)
    changed = shop.feature_set
    with pytest.raises(
        MissingPartition, match=f"view spending in version {changed.views[0].version} .*2025-01-08"
    ) as caught:
        frame_of(shop, T0 + 12 * DAY - US)
    assert caught.value.keys == tuple(shop.key(day) for day in range(6, 11))
    with pytest.raises(
        MissingPartition, match=f"view spending in version {old.views[0].version} .*2025-01-12"
    ):
        frame_of(shop, T0 + 12 * DAY, feature_set=old)
    assert feature_sets.made(
        shop.records.results.of("shop", stage="materialize_features", keys=[shop.key(11)])[0]
    ).keys() == {view.version for view in changed.views}


def test_where_all_sources_allow_gaps_only_partitions_that_are_there_are_asked(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, YAML.replace("    key: [", "    gaps: allow\n    key: ["))
    days(shop, 8, without=range(3, 5))
    assert frame_of(shop, T0 + 6 * DAY)["orders_5d"].to_pylist() == [5]
    shop.define(
        YAML.replace("    key: [", "    gaps: allow\n    key: [").replace(
            "sum(amount)", "2 * sum(amount)"
        )
    )
    with pytest.raises(MissingPartition, match="view spending"):
        frame_of(shop, T0 + 6 * DAY)


def test_the_partitions_that_are_needed_reach_back_a_ttl_from_the_as_of_before_the_decision(
    shop: Shop,
) -> None:
    """For snapshots alone the decision's own day is still to come; an event view's row may have
    come with it.
    """

    def needed(*moments: datetime, feature_set: FeatureSet | None = None) -> list[str]:
        rows = pa.table({"event_timestamp": pa.array(moments, TIMESTAMP)})
        return frames.required_partitions(shop.use_case, feature_set or shop.feature_set, rows)

    snapshot = FeatureSet(shop.feature_set.views[:1])
    assert needed(T0 + 20 * DAY, feature_set=snapshot) == [shop.key(day) for day in range(16, 20)]
    assert needed(T0 + 20 * DAY + HOUR) == [shop.key(day) for day in range(15, 21)]
    assert needed(T0 + 20 * DAY + HOUR, T0 + 22 * DAY, T0 + HOUR, T0 - DAY) == [
        shop.key(day) for day in [0, *range(15, 23)]
    ]
    assert needed() == []


def test_answerable_decisions_are_those_whose_partitions_are_there(shop: Shop) -> None:
    days(shop, 12, without=range(4))
    rows = pa.table({"event_timestamp": pa.array([T0 + day * DAY for day in range(14)], TIMESTAMP)})
    found = frames.answerable(shop.records, shop.use_case, shop.feature_set, rows)
    assert found["event_timestamp"].to_pylist() == [T0 + day * DAY for day in (9, 10, 11)]


def test_an_old_feature_set_is_joined_by_the_same_path_at_its_pinned_versions(shop: Shop) -> None:
    days(shop, 2)
    old = shop.feature_set
    serve(shop, old.version)
    versions = frames.table_versions(shop.lake, shop.use_case, old)
    shop.arrive(1, [(7, 1, 100.0, T0 + DAY, T0 + DAY)])
    shop.define(YAML.replace("sum(amount)", "sum(amount) + 0.5"))
    shop.arrive(2)
    assert [shop.run(day).state for day in range(3)] == ["done"] * 3
    shop.label(10, (1, T0 + 2 * DAY, T0 + 10 * DAY, T0 + 10 * DAY, 1.0))
    spine = frames.spine(shop.lake, shop.use_case, AS_OF)

    def amount(feature_set: FeatureSet, versions: dict[str, int | None]) -> Any:
        frame = frames.training_frame(
            shop.settings, shop.use_case, feature_set, spine, versions, records=shop.records
        )
        return frame["amount_5d"].to_pylist()

    again = recorded(shop.records, "shop", old.version)
    assert again == old
    assert amount(again, versions) == [3.0]
    assert amount(again, {}) == [101.0]
    assert amount(shop.feature_set, {}) == [101.5]
    # views of one name, in registries that may come to lie where an earlier one lay.
    for _ in range(20):
        assert (amount(again, {}), amount(shop.feature_set, {})) == ([101.0], [101.5])
    versions = [
        transient_store(shop.settings, shop.use_case, one).registry.proto().version_id
        for one in (again, again)
    ]
    assert all(versions)
    assert versions[0] != versions[1]


def test_an_entity_frame_sees_no_later_partition_and_keeps_who_is_stale(shop: Shop) -> None:
    days(shop, 2)
    gone = T0 + DAY + HOUR  # customer 2 visited on day 1 only
    for day in range(2, 8):
        shop.arrive(day, [(day, 1, 1.0, T0 + day * DAY, T0 + day * DAY)])
        shop.run(day)
    first = frames.entity_frame_at(shop.lake, shop.use_case, shop.feature_set, shop.as_of(1))
    assert first.column_names == [
        "customer_id",
        "event_timestamp",
        "orders_5d",
        "amount_5d",
        "today",
        "pages",
        "device",
    ]
    assert [(row["customer_id"], row["orders_5d"], row["pages"]) for row in first.to_pylist()] == [
        (1, 2, 0),
        (2, None, 1),
    ]
    last = frames.entity_frame_at(
        shop.lake, shop.use_case, shop.feature_set, shop.as_of(7)
    ).to_pylist()
    assert [(row["customer_id"], row["orders_5d"], row["pages"]) for row in last] == [
        (1, 5, None),
        (2, None, None),
    ]
    ttl = shop.feature_set.ttl
    assert last[1]["event_timestamp"] + ttl == gone + 4 * DAY  # the visit view's own ttl
    assert last[1]["event_timestamp"] + ttl < shop.as_of(7)


def test_availability_moves_the_moment_of_an_entity_frame(tmp_path: Path) -> None:
    """The day's own snapshot is seen although it is available later; what arrives meanwhile
    belongs to the next day.
    """
    shop = Shop(tmp_path, YAML.replace("availability: 0s", "availability: 2h"))
    days(shop, 1)
    meanwhile = shop.as_of(0) + HOUR
    shop.arrive(1, [], [(1, 77, "web", meanwhile, meanwhile)])
    shop.run(1)
    (row,) = frames.entity_frame_at(
        shop.lake, shop.use_case, shop.feature_set, shop.as_of(0)
    ).to_pylist()
    assert (row["orders_5d"], row["pages"]) == (1, 0)


def test_censored_share() -> None:
    import pyarrow as pa

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
    whole = frames.spine(shop.lake, shop.use_case, as_of)
    window = frames.spine(shop.lake, shop.use_case, as_of, since=T0 + 3 * DAY)
    assert (len(whole.rows), whole.censored) == (2, 3)
    assert (len(window.rows), window.censored, window.immature) == (1, 1, whole.immature)
    assert window.mature["event_timestamp"].to_pylist() == [T0 + 3 * DAY, T0 + 4 * DAY]
