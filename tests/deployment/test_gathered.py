"""Evidence beside the windows: gathered from a real lake and online store, and judged."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.clock import utc_now
from include.deployment import judge_release
from include.deployment.gathered import AUC, PARITY, gather, read_offline
from include.deployment.release_plan import ReleasePlan
from include.deployment.release_state import describe_state
from include.predictions.window_counts import CLUSTERS
from include.records.records import Release
from include.records.release_reports import Gathered
from tests.builders import compared
from tests.builders.compared import begin
from tests.builders.releases import entry
from tests.builders.shop import Shop

BAD = {
    "asked": [20] * CLUSTERS,
    "bad": [3] * CLUSTERS,
    "partition": "2025-01-03",
    "differ": {"amount_5d": 192},
}


@pytest.fixture(scope="module")
def published_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compared.published_home(tmp_path_factory.mktemp("published"))


@pytest.fixture
def shop(published_home: Path, tmp_path: Path) -> Shop:
    """A copy of it."""
    shutil.copytree(published_home, tmp_path / "home")
    return Shop(tmp_path / "home")


def look(shop: Shop, release: Release, *, later: float = 0.0) -> dict[str, Any]:
    now = shop.records.releases.now() + timedelta(seconds=later)
    state = judge_release.turn(shop.settings, "shop", release.id, now)
    assert state is not None
    return state


def look_and_gather(shop: Shop) -> list[Gathered]:
    gather(shop.settings, shop.lake, shop.records, shop.use_case, utc_now())
    release = shop.records.releases.of("shop")[0]
    return shop.records.releases.gathered("shop", release.id)


def test_what_nobody_has_looked_at_is_not_known_and_never_good(shop: Shop) -> None:
    state = look(shop, begin(shop))
    for metric in (PARITY, AUC):
        assert state["evidence"][metric]["word"] == "not known"
        assert state["evidence"][metric]["reason"].startswith("nobody has looked yet")
    assert "parity         not known reason nobody has looked" in describe_state(state)


def test_parity_is_gathered_once_a_step_and_publication_and_shown(shop: Shop) -> None:
    release = begin(shop)
    gathered = {row.metric: row for row in look_and_gather(shop)}
    auc, parity = gathered[AUC], gathered[PARITY]
    assert (parity.metric, parity.step, sum(parity.content["bad"])) == (PARITY, 0, 0)
    assert parity.content["common"], "both models have one feature set"
    assert auc.content["reason"].startswith("its first outcomes are mature on")
    again = {row.metric: row for row in look_and_gather(shop)}
    assert again[PARITY].at == parity.at, "of a publication that was looked at in this step"
    evidence = look(shop, release)["evidence"]
    assert evidence[PARITY]["word"] == "pass"
    assert (evidence[PARITY]["rows"], evidence[PARITY]["challenger"]) == (2, 0.0)
    assert evidence[PARITY]["partition"] == shop.key(2)
    assert evidence[AUC]["reason"] == auc.content["reason"]
    advanced = shop.records.releases.advance(
        shop.records.releases.of("shop")[0], {"word": "pass"}, entry()
    )
    assert [row.step for row in look_and_gather(shop) if row.metric == PARITY] == [0, 1]
    shown = look(shop, advanced)["evidence"][PARITY]
    assert shown["rows"] == 2, "the same rows are no further evidence in a later step"


def test_features_that_differ_roll_back_unless_the_champion_is_asked_with_them_too(
    shop: Shop,
) -> None:
    release = begin(shop)
    put = shop.records.releases.put_gathered
    put(release, PARITY, "sha256:a", {**BAD, "common": True})
    state = look(shop, release)
    assert (state["state"], state["word"], state["evidence"][PARITY]["word"]) == (
        "running",
        "hold",
        "hold",
    )
    assert "parity: 15.00%, the limit is 1.00%" in state["reason"]
    assert state["asks"], "a person is to look at it"
    assert state["evidence"][PARITY]["differ"] == "amount_5d 192"
    put(release, PARITY, "sha256:a", {**BAD, "common": False})
    state = look(shop, release)
    assert (state["state"], state["reason"]) == (
        "rolled_back",
        "parity: 15.00%, the limit is 1.00%",
    )


def test_why_it_is_not_known_is_on_record(shop: Shop, tmp_path: Path) -> None:
    begin(shop)
    with shop.records.leases.claim(
        "shop", "materialize_features", shop.key(3), owner="x", attempt=1, ttl=30
    ):
        rows = {row.metric: row for row in look_and_gather(shop)}
    assert "materialize_features is at work" in rows[PARITY].content["reason"]
    assert read_offline(rows.values()).parity is None
    rows = {(row.metric, row.source): row for row in look_and_gather(shop)}
    assert len([metric for metric, _ in rows if metric == PARITY]) == 2
    known = read_offline(rows.values())
    assert known.parity is not None
    assert "reason" not in known.told[PARITY], "it is known by now"


def test_only_a_release_in_its_steps_is_looked_at(shop: Shop) -> None:
    assert gather(shop.settings, shop.lake, shop.records, shop.use_case, utc_now()) == []
    release = begin(shop)
    shop.records.releases.abort(release, "no more", entry())
    assert look_and_gather(shop) == []


def test_a_metric_that_is_switched_off_is_neither_gathered_nor_shown(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.define((shop.folder / "shop.yaml").read_text() + OFF)
    release = begin(shop)
    assert set(ReleasePlan.read("", release.plan).metrics) & {PARITY, AUC} == set()
    assert look_and_gather(shop) == []
    assert {PARITY, AUC} & set(look(shop, release)["evidence"]) == set()


OFF = "release: {verdict: {parity: false, auc: false}}\n"


def test_features_that_cannot_be_read_fail_no_import_and_are_not_known(shop: Shop) -> None:
    release = begin(shop)
    files = [file for file in (shop.settings.home / "lake").rglob("*.parquet")
             if "features" in str(file) and "_delta_log" not in file.parts]  # fmt: skip
    assert files
    for file in files:
        file.write_bytes(b"PAR1" + bytes(file.stat().st_size - 8) + b"PAR1")
    gathered = {row.metric: row for row in look_and_gather(shop)}
    assert gathered[PARITY].source == ""
    assert gathered[PARITY].content["reason"]
    assert look(shop, release)["evidence"][PARITY]["word"] == "not known"
