"""Training frames: features as known at each decision, and the partitions that must hold them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.errors import MissingPartition
from include.features import feature_sets, frames
from include.features.feast_registry import transient_store
from include.features.feature_sets import FeatureSet, recorded
from include.features.spine import build_spine
from include.lake.sql import TIMESTAMP
from tests.builders.shop import DAY, HOUR, T0, US, YAML, Shop, run_days, serve

DELAY = 5 * DAY
AS_OF = T0 + 20 * DAY


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_training_frame_keeps_the_spine_and_sees_what_was_known_at_each_decision(
    shop: Shop,
) -> None:
    run_days(shop, 10)
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
    spine = build_spine(shop.lake, shop.use_case, AS_OF)
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
    run_days(shop, 1)
    spine = build_spine(shop.lake, shop.use_case, AS_OF)
    frame = frames.training_frame(
        shop.settings, shop.use_case, shop.feature_set, spine, {}, records=shop.records
    )
    assert (len(frame), frame.column_names[-1]) == (0, "device")


def frame_of(
    shop: Shop,
    *decisions: datetime,
    feature_set: FeatureSet | None = None,
    until: str | None = None,
) -> pa.Table:
    moments = pa.array(decisions, TIMESTAMP)
    asked = pa.table({"customer_id": pa.array([1] * len(decisions)), "event_timestamp": moments})
    return frames.training_frame(
        shop.settings,
        shop.use_case,
        feature_set or shop.feature_set,
        asked,
        {},
        records=shop.records,
        until=until,
    )


def test_a_decision_s_own_row_is_found_in_whatever_partition_it_arrived(shop: Shop) -> None:
    """An hour after midnight, or days late: whichever other decisions are asked about with it."""
    decided = [T0 + 2 * DAY + 23 * HOUR, T0 + 3 * DAY + HOUR]
    arrived = {3: (decided[0], decided[0] + 2 * HOUR), 6: (decided[1], T0 + 6 * DAY)}
    for day in range(9):
        visits = [(1, day, "web", *arrived[day])] if day in arrived else []
        shop.arrive(day, [], visits)
        if day < 8:
            shop.run(day)
    for day, (moment, _) in arrived.items():
        assert frame_of(shop, moment, until=shop.key(7))["pages"].to_pylist() == [day]
    together = frame_of(shop, *decided, until=shop.key(7))
    assert together["pages"].to_pylist() == [3, 6]
    # A training of an older partition does not know of it yet, only of the row before.
    assert frame_of(shop, decided[1], until=shop.key(5))["pages"].to_pylist() == [3]
    with pytest.raises(MissingPartition, match="2025-01-09"):  # it may hold such a row
        frame_of(shop, decided[1], until=shop.key(8))


def test_a_frame_refuses_partitions_that_do_not_hold_a_view(shop: Shop) -> None:
    """A partition that was never computed, or in another version, is missing, not null."""
    run_days(shop, 12, without=range(9, 10))
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
    assert feature_sets.tables_by_view(
        shop.records.results.of("shop", stage="materialize_features", keys=[shop.key(11)])[0]
    ).keys() == {view.version for view in changed.views}


def test_where_all_sources_allow_gaps_only_partitions_that_are_there_are_asked(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, YAML.replace("    key: [", "    gaps: allow\n    key: ["))
    run_days(shop, 8, without=range(3, 5))
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
    """For snapshots alone the decision's own day is still to come.

    An event view's row may have come with it.
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
    rows = pa.table({"event_timestamp": pa.array([T0 + 20 * DAY + HOUR], TIMESTAMP)})
    for views, last in ((shop.feature_set, 24), (snapshot, 19)):
        keys = frames.required_partitions(shop.use_case, views, rows, until=shop.key(24))
        assert keys == [shop.key(day) for day in range(15 if last == 24 else 16, last + 1)]


def test_answerable_decisions_are_those_whose_partitions_are_there(shop: Shop) -> None:
    run_days(shop, 12, without=range(4))
    rows = pa.table({"event_timestamp": pa.array([T0 + day * DAY for day in range(14)], TIMESTAMP)})
    found = frames.keep_answerable(shop.records, shop.use_case, shop.feature_set, rows)
    assert found["event_timestamp"].to_pylist() == [T0 + day * DAY for day in (9, 10, 11)]


@pytest.mark.slow
def test_an_old_feature_set_is_joined_by_the_same_path_at_its_pinned_versions(shop: Shop) -> None:
    run_days(shop, 2)
    old = shop.feature_set
    serve(shop, old.version)
    versions = frames.table_versions(shop.lake, shop.use_case, old)
    shop.arrive(1, [(7, 1, 100.0, T0 + DAY, T0 + DAY)])
    shop.define(YAML.replace("sum(amount)", "sum(amount) + 0.5"))
    shop.arrive(2)
    assert [shop.run(day).state for day in range(3)] == ["done"] * 3
    shop.label(10, (1, T0 + 2 * DAY, T0 + 10 * DAY, T0 + 10 * DAY, 1.0))
    spine = build_spine(shop.lake, shop.use_case, AS_OF)

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


def test_scores_are_refused_where_features_that_can_be_alive_are_missing(tmp_path: Path) -> None:
    from include.scoring.score_entities import require_features

    shop = Shop(tmp_path)
    for day in range(4):
        shop.arrive(day)
        if day != 1:
            shop.run(day)
    with pytest.raises(MissingPartition, match="view spending") as caught:
        require_features(shop.records, shop.use_case, shop.feature_set, shop.key(3))
    assert caught.value.keys == (shop.key(1),)


def test_a_frame_opens_no_partition_that_its_decisions_cannot_see(shop: Shop) -> None:
    """To open the files of a long history would take longer than the join."""
    run_days(shop, 30)
    decisions = [T0 + day * DAY for day in (27, 29)]
    whole = frame_of(shop, *decisions)
    for view in shop.feature_set.views:
        for path in shop.lake.files(view.table("shop"), keys=[shop.key(day) for day in range(15)]):
            Path(path).unlink()
    assert frame_of(shop, *decisions).equals(whole)
