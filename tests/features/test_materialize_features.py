"""The features stage: what is known at `as_of`, equal digests however it is run, online rows
that only move forward.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError, MissingPartition
from include.features import feature_sets
from include.features.feature_sets import FeatureSet
from include.features.online_store import OnlineReader
from include.pipeline import ranges
from include.records.models import Model
from tests.builders.shop import DAY, HOUR, T0, US, YAML, Shop, serve


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def week(shop: Shop, days: int = 7) -> None:
    """Let some days arrive, with a correction of day 1 on day 3 and a late order of day 2 on day
    4.
    """
    for day in range(days):
        start = T0 + day * DAY
        orders = [
            (day * 10 + n, n, 10.0 * n + day / 3, start + n * HOUR, start + (n + 1) * HOUR)
            for n in range(5)
        ]
        if day == 3:
            orders.append((11, 1, 999.0, T0 + DAY + HOUR, start + HOUR))
        if day == 4:
            orders.append((98, 2, 0.25, T0 + 2 * DAY + HOUR, start + HOUR))
        visits = [
            (n, n + day, "web" if n else None, start + HOUR, start + 2 * HOUR) for n in range(3)
        ]
        shop.arrive(day, orders, visits)


def reports(shop: Shop, days: range) -> dict[str, Any]:
    """Return what is recorded of the stage: digests and rows by key."""
    found = shop.records.results.of(
        "shop", stage="materialize_features", keys=[shop.key(day) for day in days]
    )
    return {result.key: (result.digest, result.outputs) for result in found}


def test_a_snapshot_has_one_row_an_entity_stamped_as_of(shop: Shop) -> None:
    week(shop)
    shop.run(3)
    rows = {row["customer_id"]: row for row in shop.rows("spending", 3)}
    assert sorted(rows) == [0, 1, 2, 3, 4]
    assert rows[1]["event_timestamp"] == rows[1]["created_timestamp"] == T0 + 4 * DAY
    assert (rows[1]["orders_5d"], rows[1]["amount_5d"]) == (
        4,
        pytest.approx(10 + 999 + 10 + 2 / 3 + 11),
    )


def test_availability_is_added_to_the_created_time(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML.replace("availability: 0s", "availability: 2h"))
    week(shop, 1)
    shop.run(0)
    (row, *_) = shop.rows("spending", 0)
    assert (row["event_timestamp"], row["created_timestamp"]) == (T0 + DAY, T0 + DAY + 2 * HOUR)


def test_an_event_view_has_a_row_for_each_source_row_of_the_partition(shop: Shop) -> None:
    week(shop)
    shop.run(3)
    rows = shop.rows("visit", 3)
    assert [(row["customer_id"], row["pages"], row["device"]) for row in rows] == [
        (0, 3, None),
        (1, 4, "web"),
        (2, 5, "web"),
    ]
    assert {(row["event_timestamp"], row["created_timestamp"]) for row in rows} == {
        (T0 + 3 * DAY + HOUR, T0 + 3 * DAY + 2 * HOUR)
    }


@pytest.mark.parametrize(
    ("event", "created", "seen"), [(-US, -US, True), (0 * US, 0 * US, False), (-US, 0 * US, False)]
)
def test_both_times_are_cut_before_as_of(shop: Shop, event: Any, created: Any, seen: bool) -> None:
    end = shop.as_of(0)
    shop.arrive(0, [(1, 1, 1.0, T0, T0), (2, 2, 1.0, end + event, end + created)])
    shop.run(0)
    assert [row["customer_id"] for row in shop.rows("spending", 0)] == ([1, 2] if seen else [1])


def test_day_by_day_backwards_again_and_in_one_pass_agree(tmp_path: Path) -> None:
    """Four ways to the same digests, a correction and a late row among the days."""
    ways = [Shop(tmp_path / name) for name in ("forward", "backward", "range")]
    for shop in ways:
        week(shop)
    forward, backward, ranged = ways
    for day in range(7):
        forward.run(day)
        backward.run(6 - day)
        ranged.ask(day)
    keys = [ranged.key(day) for day in range(7)]
    done = list(ranges.run_range("materialize_features", "shop", keys, settings=ranged.settings))
    assert [report.state for report in done] == ["done"] * 7
    expected = reports(forward, range(7))
    assert len(expected) == 7
    assert reports(backward, range(7)) == expected
    assert reports(ranged, range(7)) == expected
    assert forward.run(3).reused
    assert forward.run(3, force=True).reason == "equal to the record"


def test_a_later_correction_changes_only_later_days(shop: Shop) -> None:
    week(shop, 5)
    for day in range(3):
        shop.run(day)
    before = reports(shop, range(3))
    shop.arrive(3, [(11, 1, 999.0, T0 + DAY + HOUR, T0 + 3 * DAY)])
    for day in range(4):
        shop.run(day)
    assert reports(shop, range(3)) == before
    assert {row["customer_id"]: row["amount_5d"] for row in shop.rows("spending", 3)}[1] > 999


def test_missing_and_blocked_partitions_of_the_lookback_are_named(shop: Shop) -> None:
    week(shop, 3)
    shop.arrive(3, state="blocked")
    with pytest.raises(
        MissingPartition,
        match=r"validate_data is not done for 1 partition.*2025-01-04 \(blocked.*evergreen "
        r"load-history",
    ) as caught:
        shop.run(3)
    assert caught.value.keys == ("2025-01-04",)
    shop.arrive(5)
    with pytest.raises(MissingPartition, match=r"2025-01-04.*2025-01-05"):
        shop.run(5)


def test_a_gap_is_allowed_where_all_sources_allow_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML.replace("    key: [", "    gaps: allow\n    key: ["))
    shop.arrive(0, [(1, 1, 1.0, T0, T0)])
    shop.arrive(2, [(2, 1, 2.0, T0 + 2 * DAY, T0 + 2 * DAY)])
    assert shop.run(2).state == "done"
    with pytest.raises(MissingPartition, match="2025-01-04"):
        shop.run(3)


SPENDING = YAML[YAML.index("    sql: >-") : YAML.index("    lookback: 5d")]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "SELECT customer_id, 1 AS orders_5d, 1.0 AS amount_5d, true AS today FROM orders",
            r"spending.*one row an entity, but 1 \(2 rows\)",
        ),
        (
            "SELECT customer_id, 1 AS orders_5d, 1.0 AS amount_5d FROM orders",
            r"spending: no column \['today'\]",
        ),
        (
            "SELECT 1 AS customer_id, 'x' AS orders_5d, 1.0 AS amount_5d, true AS today",
            r"orders_5d is VARCHAR, declared int64; cast it",
        ),
        (
            "SELECT NULL AS customer_id, 1 AS orders_5d, 1.0 AS amount_5d, true AS today",
            "1 rows have no customer_id",
        ),
        (
            "SELECT 1 AS customer_id, 2::HUGEINT**90 AS orders_5d, 1.0 AS amount_5d, true AS today",
            "DOUBLE, declared int64|does not fit",
        ),
        ("SELECT * FROM customers", r"reads \['customers'\]; sources are \['orders', 'visits'\]"),
        ("SELECT nonsense FROM orders", "nonsense"),
    ],
)
def test_a_view_that_does_not_hold_what_it_declares_is_refused_by_name(
    tmp_path: Path, sql: str, message: str
) -> None:
    shop = Shop(tmp_path, YAML.replace(SPENDING, f'    sql: "{sql}"\n'))
    shop.arrive(0, [(1, 1, 1.0, T0, T0), (2, 1, 1.0, T0, T0)])
    with pytest.raises(ConfigError, match=message):
        shop.run(0)


def test_an_event_view_by_sql_holds_what_arrived_in_the_partition(tmp_path: Path) -> None:
    sql = "SELECT customer_id, event_timestamp, created_timestamp, pages, device FROM visits"
    shop = Shop(tmp_path, YAML.replace("    source: visits\n", f"    sql: {sql}\n"))
    week(shop)
    for day in (2, 3):
        shop.run(day)
        assert {row["event_timestamp"] for row in shop.rows("visit", day)} == {
            T0 + day * DAY + HOUR
        }


def test_versions_follow_definitions_and_come_back_from_the_record(shop: Shop) -> None:
    before = shop.feature_set
    assert FeatureSet.from_dict(before.to_dict()) == before
    shop.define(YAML.replace("sum(amount)", "max(amount)"))
    after = shop.feature_set
    assert after.version != before.version
    assert [view.version for view in after.views][1] == [view.version for view in before.views][1]
    shop.define(YAML.replace("What a customer spent.", "Other words."))
    assert shop.feature_set == before
    damaged = before.to_dict()
    damaged["views"][0]["sql"] += " "
    with pytest.raises(ConfigError, match="restore its record"):
        FeatureSet.from_dict(damaged)


def test_the_champions_old_feature_set_is_kept_up_and_the_digest_is_the_current_ones(
    tmp_path: Path,
) -> None:
    shop, other = Shop(tmp_path / "a"), Shop(tmp_path / "b")
    for one in (shop, other):
        week(one)
    shop.run(2)
    old = shop.feature_set
    serve(shop, old.version)
    for one in (shop, other):
        one.define(YAML.replace("sum(amount)", "max(amount)"))
    report, alone = shop.run(3), other.run(3)
    assert set(report.outputs["feature_sets"]) == {old.version, shop.feature_set.version}
    assert report.digest == alone.digest
    table = old.views[0].table("shop")
    assert len(shop.lake.read(table, keys=[shop.key(3)])) == 5
    assert feature_sets.lacking(
        [shop.records.results.get("shop", shop.key(2), "materialize_features")], shop.feature_set
    ) == [shop.key(2)]  # type: ignore[list-item]


def test_a_backfill_keeps_up_the_set_of_the_model_that_it_is_judged_against(shop: Shop) -> None:
    """Released from the newest partition before it, though another is champion; in a range each
    day has its own.
    """
    week(shop)
    texts = {name: YAML.replace("sum(amount)", f"{name}(amount)") for name in ("min", "max", "avg")}
    sets = {}
    for number, (name, text) in enumerate(texts.items(), start=1):
        shop.define(text)
        shop.run(2 * number - 1)
        sets[name] = shop.feature_set.version
        shop.records.models.add(
            Model(
                "shop",
                number,
                f"sha256:{name}",
                shop.key(2 * number - 1),
                shop.as_of(2 * number - 1),
                "live",
                sets[name],
                "bundle",
                state="released",
            )
        )
    shop.define(YAML)
    now = shop.feature_set.version
    for day in range(7):
        shop.ask(day)
    keys = [shop.key(day) for day in range(7)]
    wanted = {
        shop.key(day): {now, *(sets[name] for name in names)}
        for day, names in enumerate(
            [
                ("min", "max", "avg"),
                ("min", "max", "avg"),
                ("min", "max", "avg"),
                ("min", "max", "avg"),
                ("max", "avg"),
                ("max", "avg"),
                ("avg",),
            ]
        )
    }
    done = {
        report.key: report
        for report in ranges.run_range("materialize_features", "shop", keys, settings=shop.settings)
    }
    assert {key: set(report.outputs["feature_sets"]) for key, report in done.items()} == wanted
    assert shop.run(4).reused


def test_an_old_feature_set_that_cannot_be_computed_any_more_is_named_and_stops_nobody(
    shop: Shop,
) -> None:
    week(shop)
    shop.run(2)
    old = shop.feature_set
    serve(shop, old.version)
    text = YAML.replace(
        "amount: {type: float64}", "total: {type: float64, header: amount}"
    ).replace("(amount)", "(total)")
    shop.define(text.replace("column: amount", "column: total"))
    for day in range(8):
        shop.arrive(day, [(day, 1, 1.0, T0 + day * DAY, T0 + day * DAY)])
    report = shop.run(3)
    assert report.state == "done"
    assert list(report.outputs["feature_sets"]) == [shop.feature_set.version]
    assert "amount" in report.outputs["not_computed"][old.version]


# online rows


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
    week(shop)
    shop.run(3)
    assert state(shop) == (None, [], None)
    assert not (shop.settings.home / "feast").exists()


def test_live_rows_are_the_joins_answer_and_agree_with_feast(shop: Shop) -> None:
    """The packed rows equal Feast's online answer and its historical one at that moment; a rerun
    writes nothing.
    """
    import pandas as pd

    from include.features.feast_registry import service_name, store

    week(shop)
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

    week(shop)
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
