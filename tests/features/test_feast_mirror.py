"""Feast's online table: written by Feast where the use case asks for it, whole, and taken away."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.errors import Conflict, EvergreenError
from include.features import feast_mirror, online_stores
from include.features.feast_registry import online_path, service_name, store
from include.features.online_reader import OnlineReader
from include.features.online_rows import OnlineSet
from include.features.population import answers_at
from include.pipeline.execution import Execution
from include.pipeline.stage import StageContext
from tests.builders.shop import T0, YAML, Shop, arrive_week

WITH_FEAST = YAML + "online: {feast: true}\n"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, WITH_FEAST)


def context(shop: Shop, day: int, *, seconds: float = 30) -> StageContext:
    """Return a stage's context as it is while the stage runs, its lease for so long."""
    lease = shop.records.leases.claim(
        "shop", "materialize_features", shop.key(day), owner="test", attempt=1, ttl=seconds
    )
    execution = Execution.begin(
        "materialize_features", "shop", settings=shop.settings, started=shop.as_of(day)
    )
    return execution.context(shop.key(day), lease)


def online(shop: Shop) -> tuple[OnlineSet, pa.Table]:
    """Return what is online of the current set, and the frame that it was made of."""
    described = OnlineReader(online_stores.online_path(shop.settings, "shop")).describe(
        shop.feature_set.version
    )
    assert described is not None
    day = int(described.partition[-2:]) - 1
    return described, answers_at(shop.lake, shop.use_case, shop.feature_set, shop.as_of(day))


def answers(shop: Shop, customers: list[int]) -> dict[str, list[Any]]:
    """Return Feast's answer."""
    opened = store(shop.settings)
    entities = [{"customer_id": customer} for customer in customers]
    answer: dict[str, list[Any]] = opened.get_online_features(
        opened.get_feature_service(service_name("shop")), entities
    ).to_dict()
    return answer


def live(shop: Shop, day: int) -> Any:
    """Run a day live and return what was done online for the current set."""
    for earlier in range(day):
        shop.run(earlier)
    return shop.run(day, "live").effects[shop.feature_set.version]


def test_nothing_is_written_where_the_use_case_does_not_ask(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    arrive_week(shop, 2)
    assert "feast" not in live(shop, 1)
    assert answers(shop, [1])["pages"] == [None], "registered, and without rows"
    assert not feast_mirror.is_mirrored(
        *(shop.settings, shop.use_case, shop.feature_set), online(shop)[0]
    )


def test_rows_leave_feast_when_the_use_case_no_longer_asks(shop: Shop) -> None:
    """What stays would be answered for ever, and be as old as the day of the change."""
    arrive_week(shop, 3)
    assert live(shop, 1)["feast"] == "written"
    assert answers(shop, [1])["pages"] == [2]
    version = shop.feature_set.version

    def run_live() -> Any:
        return shop.run(2, "live").effects[version].get("feast")

    shop.define(YAML)
    assert run_live() == "removed"
    assert answers(shop, [1])["pages"] == [None]
    assert run_live() is None
    shop.define(WITH_FEAST)
    assert run_live() == "written"
    assert answers(shop, [1])["pages"] == [3]


def test_every_row_is_written_whatever_batches_it_comes_in(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's call for a table takes the first batch and leaves the others out without a word."""
    monkeypatch.setattr(feast_mirror, "ROWS_AT_ONCE", 2)
    arrive_week(shop, 2)
    live(shop, 1)
    described, frame = online(shop)
    chunked = pa.concat_tables([frame.slice(0, 1), frame.slice(1, 3), frame.slice(4)])
    assert chunked.column(0).num_chunks == 3
    with closing(sqlite3.connect(online_path(shop.settings))) as con:
        con.execute("DELETE FROM evergreen_mirror")
        con.commit()
    feast_mirror.write_mirror(context(shop, 1), shop.feature_set, described, chunked)
    answer = answers(shop, frame["customer_id"].to_pylist())
    for name in shop.feature_set.feature_types:
        assert answer[name] == frame[name].to_pylist()
    with closing(sqlite3.connect(online_path(shop.settings))) as con:
        count = con.execute('SELECT count(*) FROM "evergreen_shop__spending"').fetchone()
    assert count == (3 * 5,)


def test_values_of_every_kind_come_back(shop: Shop) -> None:
    """Integers beside nulls that no float holds, NaN, signs of zero, empty and foreign texts."""
    arrive_week(shop, 1)
    live(shop, 0)
    described, frame = online(shop)
    values = {
        "orders_5d": pa.array([2**62 + 1, -1, None, 0, 3], pa.int64()),
        "amount_5d": pa.array([1.5, -0.0, float("nan"), None, 1e-300]),
        "today": pa.array([True, False, None, True, False]),
        "pages": pa.array([1, None, None, 2**53 + 1, 1], pa.int64()),
        "device": pa.array(["a", "", None, "Ω'\"", "a"]),
    }
    newest = pa.array([int(T0.timestamp() * 1e6)] * 5, pa.int64()).cast(
        frame.schema.field("__newest_visit").type
    )
    for name, column in (values | {"__newest_visit": newest, "__newest_spending": newest}).items():
        frame = frame.set_column(frame.column_names.index(name), name, column)
    feast_mirror.write_mirror(context(shop, 0), shop.feature_set, described, frame)
    answer = answers(shop, frame["customer_id"].to_pylist())
    assert answer.pop("amount_5d")[2] is None, "Feast keeps NaN as a null"
    for name in answer.keys() & values.keys():
        assert list(map(str, answer[name])) == list(map(str, values[name].to_pylist())), name


def test_a_view_without_values_takes_the_older_ones_away(shop: Shop) -> None:
    """Feast's call for a table leaves such rows out with a warning, and older ones would stay."""
    arrive_week(shop, 1)
    live(shop, 0)
    described, frame = online(shop)
    for name in ("pages", "device"):
        nothing = pa.nulls(len(frame), frame.schema.field(name).type)
        frame = frame.set_column(frame.column_names.index(name), name, nothing)
    feast_mirror.write_mirror(context(shop, 0), shop.feature_set, described, frame)
    assert answers(shop, [1])["pages"] == [None]
    assert answers(shop, [1])["orders_5d"] == [1]


def test_an_older_partition_does_not_replace_a_newer_one(shop: Shop) -> None:
    arrive_week(shop, 3)
    live(shop, 2)
    described, frame = online(shop)
    before = answers(shop, [0, 1, 2])
    older = dataclasses.replace(described, partition=shop.key(1))
    with pytest.raises(Conflict, match="2025-01-03; 2025-01-02 does not replace"):
        feast_mirror.write_mirror(context(shop, 1), shop.feature_set, older, frame.slice(0, 1))
    assert answers(shop, [0, 1, 2]) == before


def test_a_writer_that_is_overtaken_leaves_the_old_rows(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive_week(shop, 2)
    live(shop, 0)
    described, frame = online(shop)
    before = answers(shop, [0, 1, 2])
    overtaken = context(shop, 0, seconds=0.5)
    with (
        shop.records.leases.claim(
            "shop", "materialize_features", shop.key(0), owner="other", attempt=2, ttl=30, wait=60
        ),
        pytest.raises(EvergreenError),
    ):
        feast_mirror.write_mirror(overtaken, shop.feature_set, described, frame.slice(0, 1))
    assert answers(shop, [0, 1, 2]) == before
    assert feast_mirror.is_mirrored(shop.settings, shop.use_case, shop.feature_set, described)
