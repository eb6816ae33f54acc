"""Feast's historical and pull reads over the lake.

Rows in = rows out, both times cut, versions pinned.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from include.errors import ConfigError
from include.features.feast_registry import apply_registry, service_name, store
from tests.builders.shop import DAY, HOUR, T0, US, Shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Visits by hand: customer 1 restated later, 2 with a tie, 3 late; spending of one day."""
    made = Shop(tmp_path_factory.mktemp("shop"))
    made.arrive(
        0,
        [(1, 1, 10.0, T0, T0)],
        [(1, 10, "a", T0, T0), (2, 20, "a", T0, T0), (2, 21, "b", T0, T0 + HOUR)],
    )
    made.arrive(
        1, [], [(1, 999, "z", T0, T0 + DAY + HOUR), (3, 30, "c", T0 + HOUR, T0 + DAY + 2 * HOUR)]
    )
    for day in range(2):
        made.run(day)
    assert apply_registry(made.settings, made.records, made.use_case, made.feature_set)
    assert not apply_registry(made.settings, made.records, made.use_case, made.feature_set)
    return made


def ask(shop: Shop, rows: list[tuple[int, datetime]], **options: Any) -> list[dict[str, Any]]:
    feast = store(shop.settings)
    frame = pd.DataFrame(
        {"customer_id": [row[0] for row in rows], "event_timestamp": [row[1] for row in rows]}
    )
    features = options.pop("features", None) or feast.get_feature_service(service_name("shop"))
    found: list[dict[str, Any]] = (
        feast.get_historical_features(entity_df=frame, features=features, **options)
        .to_arrow()
        .to_pylist()
    )
    return found


@pytest.mark.parametrize("flag", [True, False])
def test_what_was_known_is_answered_whatever_the_flag_says(shop: Shop, flag: bool) -> None:
    moments = [
        (1, T0 - US),
        (1, T0),
        (1, T0 + DAY + HOUR - US),
        (1, T0 + DAY + HOUR),
        (2, T0),
        (2, T0 + HOUR),
        (3, T0 + DAY),
    ]
    found = ask(shop, moments, filter_by_created_timestamp=flag)
    assert [row["pages"] for row in found] == [None, 10, 10, 999, 20, 21, None]


def test_rows_keep_number_and_order_and_their_own_columns(shop: Shop) -> None:
    """Duplicates, unknown keys and keys with only future features: five in, five out."""
    feast = store(shop.settings)
    frame = pd.DataFrame(
        {
            "note": ["e", "d", "c", "b", "a"],
            "customer_id": [3, 99, 2, 2, 1],
            "event_timestamp": [T0, T0, T0 + 2 * HOUR, T0 + 2 * HOUR, T0 + 2 * DAY],
        }
    )
    found = feast.get_historical_features(
        entity_df=frame, features=["shop__visit:pages", "shop__spending:orders_5d"]
    ).to_df()
    assert list(found["note"]) == list("edcba")
    assert list(found["customer_id"]) == [3, 99, 2, 2, 1]
    assert [None if pd.isna(one) else one for one in found["pages"]] == [None, None, 21, 21, 999]
    assert [None if pd.isna(one) else one for one in found["orders_5d"]] == [
        None,
        None,
        None,
        None,
        1,
    ]


def test_ttl_and_full_names(shop: Shop) -> None:
    """A ttl counts from the newest as_of at or before the moment, so it ends with the next one."""
    rows = [(2, T0 + 4 * DAY), (2, T0 + 5 * DAY - US), (2, T0 + 5 * DAY)]
    found = ask(shop, rows, features=["shop__visit:pages"], full_feature_names=True)
    assert [row["shop__visit__pages"] for row in found] == [21, 21, None]


def test_nanosecond_frames_see_nothing_later(shop: Shop) -> None:
    moment = pd.Timestamp(T0).as_unit("ns") - pd.Timedelta(1, "ns")
    assert [
        row["pages"] for row in ask(shop, [(1, moment), (1, moment + pd.Timedelta(2, "ns"))])
    ] == [None, 10]


def test_pinned_versions_are_read_although_the_table_went_on(tmp_path: Path) -> None:
    from include.features.feast_offline_store import pinned

    shop = Shop(tmp_path)
    shop.arrive(0, [], [(1, 10, "a", T0, T0)])
    shop.run(0)
    apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)
    table = shop.feature_set.views[1].table("shop")
    version = shop.lake.version(table)
    shop.arrive(0, [], [(1, 11, "a", T0, T0)])
    shop.run(0)
    with pinned({table: version}):
        assert ask(shop, [(1, T0)], features=["shop__visit:pages"])[0]["pages"] == 10
    assert ask(shop, [(1, T0)], features=["shop__visit:pages"])[0]["pages"] == 11


def pull(shop: Shop, method: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    from include.features.feast_offline_store import LakeOfflineStore

    feast = store(shop.settings)
    source = feast.get_feature_view("shop__visit").batch_source
    job = getattr(LakeOfflineStore, method)(
        feast.config,
        source,
        ["customer_id"],
        ["pages"],
        "event_timestamp",
        "created_timestamp",
        start,
        end,
    )
    found: list[dict[str, Any]] = job.to_arrow().to_pylist()
    return sorted(found, key=lambda row: (row["customer_id"], row["created_timestamp"]))


def test_pulls_cut_both_times(shop: Shop) -> None:
    def pages(method: str, start: datetime, end: datetime) -> list[int]:
        return [row["pages"] for row in pull(shop, method, start, end)]

    assert pages("pull_latest_from_table_or_query", T0, T0 + 2 * DAY) == [999, 21, 30]
    assert pages("pull_latest_from_table_or_query", T0, T0 + DAY) == [10, 21]
    assert pages("pull_all_from_table_or_query", T0, T0 + 2 * DAY) == [10, 999, 20, 21, 30]
    assert pages("pull_all_from_table_or_query", T0 + US, T0 + 2 * DAY) == [30]


def test_an_end_date_in_the_future_is_refused_and_moves_no_watermark(shop: Shop) -> None:
    feast = store(shop.settings)
    with pytest.raises(ConfigError, match="lies in the future"):
        feast.materialize(
            start_date=T0,
            end_date=datetime.now(UTC) + timedelta(days=400),
            feature_views=["shop__visit"],
        )
    assert store(shop.settings).get_feature_view("shop__visit").materialization_intervals == []


def test_materialize_by_hand_never_puts_an_older_value_over_a_newer_one(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    for day in range(3):
        shop.arrive(day, [], [(1, day, "a", T0 + day * DAY, T0 + day * DAY)])
        shop.run(day)
    apply_registry(shop.settings, shop.records, shop.use_case, shop.feature_set)

    def online() -> Any:
        return (
            store(shop.settings)
            .get_online_features(["shop__visit:pages"], [{"customer_id": 1}])
            .to_dict()["pages"]
        )

    store(shop.settings).materialize(T0, T0 + 3 * DAY, feature_views=["shop__visit"])
    assert online() == [2]
    store(shop.settings).materialize(T0, T0 + DAY, feature_views=["shop__visit"])
    assert online() == [2]


def test_what_the_lake_cannot_answer_is_refused_with_a_reason(shop: Shop) -> None:
    from feast import FileSource

    from include.features.feast_offline_store import LakeOfflineStore

    feast = store(shop.settings)
    with pytest.raises(ConfigError, match="neither SQL"):
        feast.get_historical_features(entity_df="SELECT 1", features=["shop__visit:pages"])
    with pytest.raises(ConfigError, match="no event_timestamp"):
        feast.get_historical_features(
            entity_df=pd.DataFrame({"customer_id": [1]}), features=["shop__visit:pages"]
        )
    mapped = FileSource(
        name="x", path="shop/x", timestamp_field="event_timestamp", field_mapping={"a": "b"}
    )
    with pytest.raises(ConfigError, match="no field mapping"):
        LakeOfflineStore().validate_data_source(feast.config, mapped)
