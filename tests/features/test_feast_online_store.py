"""Our bulk write of Feast's online table stores what Feast's own write stores."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from include.features.feast_registry import apply_registry, store
from include.lake.sql import TIMESTAMP
from tests.builders.shop import T0, US, Shop

NAN = float("nan")
SPENDING: dict[str, list[Any]] = {
    "orders_5d": [3, -1, 2**40, 0, 3],
    "amount_5d": [1.5, -0.0, NAN, 0.0, 1e-300],
    "today": [True, False, True, True, False],
}
VISIT: dict[str, list[Any]] = {
    "pages": [1, None, None, 2, 1],
    "device": ["a", "", None, "Ω'\"", "a"],
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("shop"))
    apply_registry(made.settings, made.records, made.use_case, made.feature_set)
    return made


def rows(shop: Shop, view: str, columns: dict[str, list[Any]]) -> pa.Table:
    (declared,) = [one for one in shop.feature_set.views if one.name == view]
    times = pa.array([T0, T0 + US, T0, T0 + 86_399_999_999 * US, T0], TIMESTAMP)
    arrays = {
        name: pa.array(values, declared.schema.field(name).type) for name, values in columns.items()
    }
    return pa.table(
        {
            "customer_id": pa.array([7, 256, 1, 255, 2**33]),
            **arrays,
            "event_timestamp": times,
            "created_timestamp": times,
        }
    )


@pytest.mark.parametrize(("view", "columns"), [("spending", SPENDING), ("visit", VISIT)])
def test_the_bulk_write_stores_what_feasts_own_write_stores(
    shop: Shop, view: str, columns: dict[str, list[Any]]
) -> None:
    opened, frame = store(shop.settings), rows(shop, view, columns)
    online, name = opened._get_provider().online_store, f"shop__{view}"
    query = (
        "SELECT entity_key, feature_name, value, value_text, vector_value, event_ts, "
        f'created_ts FROM "evergreen_{name}"'
    )

    def stored() -> list[tuple[Any, ...]]:
        return sorted(
            online._get_conn(opened.config).execute(query).fetchall(), key=lambda row: row[:2]
        )

    opened.write_to_online_store(name, frame.to_pandas(types_mapper=pd.ArrowDtype))
    by_feast = stored()
    assert len(by_feast) == 5 * len(columns)
    for _ in range(2):  # what was there is replaced
        with online.one_transaction(opened.config):
            online.replace_all(opened.config, opened.get_feature_view(name), frame)
        assert stored() == by_feast


def test_a_bulk_write_leaves_only_its_own_rows_and_none_of_no_rows(shop: Shop) -> None:
    opened, frame = store(shop.settings), rows(shop, "visit", VISIT)
    online, view = opened._get_provider().online_store, opened.get_feature_view("shop__visit")
    for count in (5, 2, 0):
        with online.one_transaction(opened.config):
            online.replace_all(opened.config, view, frame.slice(0, count))
        answer = opened.get_online_features(
            ["shop__visit:pages"], [{"customer_id": one} for one in (7, 1)]
        ).to_dict()
        assert answer["pages"] == ([1, None] if count else [None, None])
        assert online._get_conn(opened.config).execute(
            'SELECT count(*) FROM "evergreen_shop__visit"'
        ).fetchone() == (2 * count,)


def test_a_view_whose_features_are_all_unknown_is_written_too(shop: Shop) -> None:
    """Feast's own write leaves such rows out with a warning, and the older ones would stay
    online.
    """
    opened = store(shop.settings)
    online = opened._get_provider().online_store
    frame = rows(shop, "visit", {name: [None] * 5 for name in VISIT})
    with online.one_transaction(opened.config):
        online.replace_all(opened.config, opened.get_feature_view("shop__visit"), frame)
    assert online._get_conn(opened.config).execute(
        'SELECT count(*) FROM "evergreen_shop__visit"'
    ).fetchone() == (10,)
