"""Feature sets: versions by definition, and which of them a partition must hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConfigError
from include.features import feature_sets
from include.features.feature_sets import FeatureSet
from include.pipeline import ranges
from include.records.models import Model
from include.records.schema import ModelRow
from tests.builders import releases
from tests.builders.shop import DAY, T0, YAML, Shop, arrive_week, serve


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


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
        arrive_week(one)
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
    assert feature_sets.keys_without(
        [shop.records.results.get("shop", shop.key(2), "materialize_features")], shop.feature_set
    ) == [shop.key(2)]  # type: ignore[list-item]


def test_the_set_of_a_candidate_that_waits_is_kept_up_behind_a_newer_one(shop: Shop) -> None:
    """The newer one was refused, so it takes nobody's place in the queue."""
    arrive_week(shop)
    shop.run(1)
    served = shop.feature_set.version
    shop.define(YAML.replace("sum(amount)", "min(amount)"))
    shop.run(2)
    waits = shop.feature_set.version
    releases.under_way(shop.records, shop.key(0))
    releases.request(shop.records, 3, shop.key(2), waits=True)
    refused = Model(
        "shop", 4, "sha256:4", shop.key(2), shop.as_of(2), "live", served, "", state="candidate"
    )
    shop.records.models.add(refused)
    with shop.records.transaction() as session:
        for version, name in ((1, served), (2, served), (3, waits)):
            session.get_one(ModelRow, ("shop", version)).feature_set = name
    shop.define(YAML)
    assert set(shop.run(3).outputs["feature_sets"]) == {served, waits}


def test_a_backfill_keeps_up_the_set_of_the_model_that_it_is_judged_against(shop: Shop) -> None:
    """Released from the newest partition before it, though another is champion.

    In a range each day has its own.
    """
    arrive_week(shop)
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
    arrive_week(shop)
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
