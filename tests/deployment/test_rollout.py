"""What nodes say of a release, and a release taken back: records only, no node runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.config import settings as environment
from include.deployment import rollout
from include.deployment.rollback import record_rollback
from include.deployment.rollout import node_readiness
from include.errors import Conflict
from include.records.records import Observed, Route
from tests.builders.serving import NAME, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_readiness_asks_every_node_that_lives() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    route = Route(NAME, challenger=2, generation=5)
    ready = Observed(NAME, "a", 5, "ready", {"problems": []}, at)
    assert node_readiness(route, []).state == "waiting"
    assert node_readiness(route, [ready]).state == "ready"
    late = replace(ready, node="b", generation=4)
    assert node_readiness(route, [ready, late]).state == "waiting"
    assert node_readiness(route, [ready, replace(late, state="stopped")]).state == "ready"
    assert (
        node_readiness(route, [ready, replace(late, at=at - timedelta(minutes=5))]).state == "ready"
    )
    assert node_readiness(route, [replace(ready, state="failed")]).state == "failed"
    assert node_readiness(replace(route, challenger=None), [ready]).state == "failed"


def test_a_refusal_names_the_node_and_its_problems() -> None:
    route = Route(NAME, challenger=2, generation=5)
    at = datetime(2026, 3, 1, tzinfo=UTC)
    refusing = Observed(NAME, "a", 5, "failed", {"problems": ["no memory", "no disk"]}, at)
    readiness = node_readiness(route, [refusing])
    assert readiness.reason == "node a refuses it: no memory; no disk"
    assert "no reason given" in node_readiness(route, [replace(refusing, detail={})]).reason


def test_the_deferred_wait_has_an_answer_once_the_nodes_have_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "settings", lambda: desk.settings)
    desk.candidate(1)
    generation = desk.record_route(challenger=1)
    assert rollout.answered(NAME, "2026-03-01") is None
    at = datetime(2026, 3, 1, tzinfo=UTC)
    desk.records.nodes.observe(NAME, "a", generation=generation, state="ready", detail={}, at=at)
    assert rollout.answered(NAME, "2026-03-01") == {
        "state": "ready",
        "reason": "1 node(s) have tried model 1",
    }
    desk.record_route(challenger=None)
    assert (rollout.answered(NAME, "2026-03-01") or {})["state"] == "failed"


def test_a_rollback_is_audited_with_its_reason_and_a_second_has_nothing_to_go_back_to(
    desk: Desk,
) -> None:
    desk.candidate(1)
    desk.candidate(2, "2026-03-02")
    desk.record_route(champion=2, previous=1)
    route = record_rollback(desk.records, NAME, "person", "it is slow")
    assert (route.champion, route.previous) == (1, None)
    (entry,) = desk.records.audit.entries(NAME, action="release.rolled_back")
    assert (entry.subject, entry.actor, entry.details["reason"]) == ("2", "person", "it is slow")
    with pytest.raises(Conflict):
        record_rollback(desk.records, NAME, "person", "again")
    rollout.release_hold(desk.settings, NAME, 2, "person", "it was the disk")
    with pytest.raises(Conflict, match="has no model version 7"):
        rollout.release_hold(desk.settings, NAME, 7, "person", "why not")


def test_a_rollback_in_an_older_generation_loses(desk: Desk) -> None:
    desk.candidate(1)
    desk.candidate(2, "2026-03-02")
    generation = desk.record_route(champion=2, previous=1)
    desk.record_route(weight=0)
    with pytest.raises(Conflict):
        record_rollback(desk.records, NAME, "person", "bad", expect_generation=generation)
    assert desk.records.routes.get(NAME).champion == 2
