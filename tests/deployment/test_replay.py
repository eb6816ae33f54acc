"""Which past requests a replay asks both models, on real online rows and a real log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.clock import utc_now
from include.deployment import replay
from include.deployment.replay import ENTITIES, Pair, are_everybody, ask_both, rows_to_ask
from include.lake.tables import Lake
from include.models.encoding import InvalidFeature
from include.models.kinds import ServedModel
from include.pipeline.stage import StageContext
from include.predictions.import_segments import import_closed
from include.records.records import Release
from tests.builders.logged import write_segment
from tests.builders.releases import AT, PLAN
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk

RELEASE = Release(
    use_case=NAME, id="a1", partition="2026-03-01", challenger=2, challenger_digest="",
    bento_digest=None, signature=None, champion=1, opponent_generation=0, plan=PLAN, step=0,
    state="trying", paused=False, suspended=False, entered_at=AT, started_at=AT, ended_at=None,
    verdicts=[], reason="", gap_seconds=0.0, rolled_back_by_itself=False, revision=0,
)  # fmt: skip


def publish(desk: Desk, count: int) -> None:
    desk.publish({entity: (NOW, {**ROW, "income": float(entity)}) for entity in range(count)})


def test_both_models_are_asked_the_same_entities_each_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    publish(desk, 1200)
    desk.candidate(1)
    desk.train(2, "2026-03-02")
    with desk.context("deploy_model") as context:
        asked = [entity for entity, _, _ in rows_to_ask(context, FEATURE_SET, FEATURE_SET)]
        again = [entity for entity, _, _ in rows_to_ask(context, FEATURE_SET, FEATURE_SET)]
        pairs, _ = ask_both(context, RELEASE)
        assert list(rows_to_ask(context, "another", FEATURE_SET)) == [], "not online for both"
        same, _ = ask_both(context, replace(RELEASE, challenger=1))
    assert (len(set(asked)), asked) == (ENTITIES, again)
    assert {int(entity) for entity in asked} != set(range(ENTITIES)), "not the first by their key"
    assert len(pairs) == ENTITIES
    assert any(pair.champion != pair.challenger for pair in pairs)
    assert all(pair.champion == pair.challenger for pair in same)
    assert all(pair.champion_us >= 0 and pair.challenger_us >= 0 for pair in pairs)


def test_everybody_is_asked_where_no_more_are_online_than_are_asked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.candidate(1)
    desk.train(2, "2026-03-02")
    with desk.context("deploy_model") as context:
        assert not are_everybody(context, RELEASE, pairs_of(7)), "nobody is online"
        for online, asked, all_of_them in (
            (7, 7, True),
            (100, 95, True),
            (100, 94, False),
            (ENTITIES, ENTITIES, True),
            (ENTITIES + 1, ENTITIES, False),
        ):
            publish(desk, online)
            logged = [pair._replace(entity=f"logged row {pair.entity}") for pair in pairs_of(50)]
            pairs = [*pairs_of(asked), *logged]
            assert are_everybody(context, RELEASE, pairs) is all_of_them


def pairs_of(count: int) -> list[Pair]:
    return [Pair(str(number), 0.5, 0.5, 1, 1) for number in range(count)]


def test_logged_rows_are_asked_unless_a_model_lacks_a_feature_of_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    whole, cut = json.dumps(ROW).encode(), json.dumps({"income": 1.0}).encode()
    before = utc_now() - timedelta(minutes=1)
    write_segment(tmp_path, *range(7), at=before, features=whole)
    write_segment(tmp_path, *range(5), at=before, features=cut)
    lake = Lake(desk.settings.lake_root)
    import_closed(desk.settings, lake, desk.records, NAME, at=utc_now(), actor="test")
    desk.candidate(1)
    desk.train(2, "2026-03-02")
    with desk.context("deploy_model") as context:
        pairs, lacks = ask_both(context, RELEASE)
    assert (len(pairs), lacks) == (7, {}), "of a row that the champion refuses nothing is said"
    assert all(pair.entity.startswith("logged row") for pair in pairs)


def test_rows_that_lack_a_feature_of_the_challenger_alone_are_counted_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    wide = json.dumps({**ROW, "extra": 1.0}).encode()
    before = utc_now() - timedelta(minutes=1)
    write_segment(tmp_path, *range(7), at=before, features=wide)
    write_segment(tmp_path, *range(5), at=before, features=json.dumps(ROW).encode())
    lake = Lake(desk.settings.lake_root)
    import_closed(desk.settings, lake, desk.records, NAME, at=utc_now(), actor="test")
    desk.candidate(1)
    desk.train(2, "2026-03-02")
    load = replay._load

    def wider(context: StageContext, version: int | None) -> tuple[str, ServedModel]:
        feature_set, model = load(context, version)
        if version == 2:
            ask = model.one

            def one(row: Mapping[str, Any]) -> float:
                if "extra" not in row:
                    raise InvalidFeature("extra", "is missing")
                return ask(row)

            monkeypatch.setattr(model, "one", one)
        return feature_set, model

    monkeypatch.setattr(replay, "_load", wider)
    with desk.context("deploy_model") as context:
        pairs, lacks = ask_both(context, RELEASE)
    assert (len(pairs), lacks) == (7, {"extra": 5})
