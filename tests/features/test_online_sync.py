"""Online rows: the join's answer, only moved forward, mended where they differ, by the record."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from pydantic import SecretStr

from include.clock import utc_now
from include.errors import ConfigError
from include.features.online_reader import OnlineReader
from include.features.online_rows import OnlineSet, pack
from include.features.online_stores import open_store
from tests.builders import redis_server
from tests.builders.shop import DAY, HOUR, T0, YAML, Shop, arrive_week


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A use case that asks for Feast's own online table too."""
    return Shop(tmp_path, YAML + "online: {feast: true}\n")


def online(shop: Shop) -> OnlineReader:
    return OnlineReader(shop.settings.home / "online" / "shop.db")


def state(shop: Shop) -> Any:
    """Return all online rows, packed and watermarks, of the current feature set."""
    version = shop.feature_set.version
    described = online(shop).describe(version)
    return (
        None if described is None else dataclasses.replace(described, written=T0),
        list(online(shop).rows(version)),
        shop.records.feature_sets.online("shop", version),
    )


def test_a_backfill_touches_nothing_online(shop: Shop) -> None:
    arrive_week(shop)
    shop.run(3)
    assert state(shop) == (None, [], None)
    assert not (shop.settings.home / "feast").exists()


def test_live_rows_are_the_joins_answer_and_agree_with_feast(shop: Shop) -> None:
    """The packed rows equal Feast's online answer and its historical one at that moment.

    A rerun writes nothing.
    """
    import pandas as pd

    from include.features.feast_registry import service_name, store

    arrive_week(shop)
    for day in range(3):
        shop.run(day)
    # Customer 7 was last seen on day 0 (its visit has expired by then), customer 8 has a late,
    # older visit.
    shop.arrive(
        3, [(31, 1, 5.0, T0 + 3 * DAY, T0 + 3 * DAY)], [(8, 80, "web", T0 + 3 * DAY, T0 + 3 * DAY)]
    )
    shop.run(3)
    late = (8, 1, "late", T0 + 2 * DAY, T0 + 4 * DAY)
    shop.arrive(4, [(41, 1, 5.0, T0 + 4 * DAY, T0 + 4 * DAY)], [late])
    report = shop.run(4, "live")
    version = shop.feature_set.version
    assert report.effects[version] == {
        "partition": shop.key(4),
        "written": True,
        "rows": 6,
        "feast": "written",
    }
    columns = list(shop.feature_set.feature_types)
    reader = online(shop)
    found = reader.get(version, 8)
    assert found is not None
    assert dict(zip(columns, found[1], strict=False))["device"] == "web"

    feast = store(shop.settings)
    entities = [0, 1, 2, 3, 4, 8, 99]
    service = feast.get_feature_service(service_name("shop"))
    answer = feast.get_online_features(
        features=service, entity_rows=[{"customer_id": one} for one in entities]
    ).to_dict()
    frame = pd.DataFrame(
        {
            "customer_id": entities,
            "event_timestamp": pd.to_datetime([shop.as_of(4)] * len(entities)),
        }
    )
    history = (
        feast.get_historical_features(entity_df=frame, features=service).to_arrow().to_pylist()
    )
    for index, entity in enumerate(entities):
        packed = reader.get(version, entity)
        values = dict(zip(columns, packed[1], strict=False)) if packed else dict.fromkeys(columns)
        assert {name: answer[name][index] for name in columns} == values
        assert {name: history[index][name] for name in columns} == values
    before, feast_file = state(shop), shop.settings.home / "feast" / "online.db"
    modified = feast_file.stat().st_mtime_ns
    again = shop.run(4, "live")
    assert again.reused
    assert again.effects[version] == {"partition": shop.key(4), "written": False, "rows": 6}
    assert (state(shop), feast_file.stat().st_mtime_ns) == (before, modified)


def test_online_rows_only_move_forward_and_are_repaired_where_they_differ(shop: Shop) -> None:
    import sqlite3

    arrive_week(shop)
    for day in range(5):
        shop.run(day)
    shop.run(4, "live")
    before, version = state(shop), shop.feature_set.version
    older = shop.run(2, "live")
    assert older.effects[version] == {
        "partition": shop.key(4),
        "written": False,
        "reason": "2025-01-05 is online and newer",
    }
    assert state(shop) == before

    with sqlite3.connect(shop.settings.home / "online" / "shop.db") as con:
        con.execute("UPDATE rows SET event_ts = 1 WHERE entity = '1'")
    with sqlite3.connect(shop.settings.home / "feast" / "online.db") as con:
        con.execute('DELETE FROM "evergreen_shop__visit"')
    repaired = shop.run(4, "live").effects[version]
    assert (repaired["written"], repaired["feast"], state(shop)) == (True, "written", before)

    # as if killed between the rows' commit and the watermark.
    with shop.records.transaction() as session:
        from include.records.schema import OnlineRow

        session.delete(session.get(OnlineRow, ("shop", version)))
    assert state(shop) != before
    shop.run(4, "live")
    assert state(shop) == before


def test_a_partition_that_is_not_over_is_not_materialized(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML.replace("first: 2025-01-01", "first: 2124-01-01"))
    day = (datetime(2124, 1, 1, tzinfo=UTC) - T0).days
    shop.arrive(day, [(1, 1, 1.0, T0 + day * DAY, T0 + day * DAY)])
    with pytest.raises(ConfigError, match="lies in the future"):
        shop.run(day, "live")
    assert state(shop) == (None, [], None)


def test_what_no_model_reads_any_more_goes_from_the_store(shop: Shop) -> None:
    arrive_week(shop)
    store = open_store(shop.settings, "shop")
    for name, days in {"unneeded": 8, "lately": 6}.items():
        written = utc_now() - days * DAY
        store.publish(
            OnlineSet(name, ("pages",), shop.key(1), 30 * DAY, written, inputs="", digest=""),
            [pack("1", 0, [3])],
        )
    shop.run(3, "live")
    assert store.describe("unneeded") is None
    assert store.describe("lately") is not None
    assert store.describe(shop.feature_set.version) is not None


def test_online_rows_go_by_the_record(tmp_path: Path) -> None:
    """Rows of a partition that is not on record are not read, and it is named."""
    from include.features import online_sync
    from include.pipeline.execution import Execution

    shop = Shop(tmp_path)
    for day in range(4):
        moment = T0 + day * DAY + HOUR
        shop.arrive(day, [], [(day, day, "web", moment, moment)])
        shop.ask(day)
        if day != 2:
            shop.run(day)
    view, version = shop.feature_set.views[1], shop.feature_set.version
    orphan = pa.table(
        {
            "customer_id": [77],
            "event_timestamp": [T0 + 2 * DAY],
            "created_timestamp": [T0 + 2 * DAY],
            "pages": [1],
            "device": ["x"],
        }
    )
    shop.lake.replace(view.table("shop"), shop.key(2), orphan.cast(view.schema))
    with shop.records.leases.claim(
        "shop", "materialize_features", shop.key(3), owner="test 3", attempt=1, ttl=30
    ) as lease:
        execution = Execution.begin("materialize_features", "shop", settings=shop.settings)
        context = execution.context(shop.key(3), lease)
        done = online_sync.materialize(context, [version], current="")[version]
        assert (done["rows"], done["missing"]) == (3, [shop.key(2)])
        shop.run(2)
        done = online_sync.materialize(context, [version], current="")[version]
        assert (done["rows"], done["written"], "missing" in done) == (4, True, False)


def test_what_is_gone_from_redis_is_published_again(tmp_path: Path) -> None:
    with redis_server.prefix() as own:
        there = {"online_url": SecretStr(redis_server.URL), "online_prefix": own}
        shop = Shop(tmp_path, YAML)
        shop.settings = shop.settings.model_copy(update=there)
        arrive_week(shop)
        version = shop.feature_set.version
        assert shop.run(3, "live").effects[version]["written"]
        assert not (shop.settings.home / "online").exists()
        store = open_store(shop.settings, "shop")
        rows, described = list(store.rows(version)), store.describe(version)
        assert rows
        assert shop.run(3, "live").effects[version]["written"] is False
        client = redis.Redis.from_url(redis_server.URL)
        base = f"{own}:{{shop/{version}}}"
        for damage in (
            lambda: client.delete(*client.scan_iter(f"{base}:*")),
            lambda: client.delete(*client.scan_iter(f"{base}:rows:*")),
            lambda: client.hset(f"{base}:online", "described", "nonsense"),
        ):
            damage()
            assert shop.run(3, "live").effects[version]["written"]
            assert list(store.rows(version)) == rows
        again = store.describe(version)
        assert described is not None
        assert again is not None
        assert dataclasses.replace(again, written=described.written) == described
        store.close()
        client.close()
