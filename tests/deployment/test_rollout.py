"""What nodes say of a release, and a release taken back: records only, no node runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config import settings as environment
from include.deployment import rollout
from include.deployment.rollback import record_rollback
from include.deployment.rollout import champion_problems, node_readiness, serving_nodes
from include.errors import Conflict
from include.records.records import Observation, RoleReport, Route
from tests.builders.serving import NAME, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


AT = datetime(2026, 3, 1, tzinfo=UTC)
READY = Observation(
    NAME, "a", "boot", "challenger", 2, "sha256:2", "ready", "", 0.0, 5, AT, living=True
)


def test_readiness_asks_every_node_that_lives() -> None:
    route = Route(NAME, challenger=2, generation=5)
    assert node_readiness(route, []).state == "waiting"
    assert node_readiness(route, [READY]).state == "ready"
    late = replace(READY, node="b", generation=4)
    assert node_readiness(route, [READY, late]).state == "waiting"
    gone = replace(late, living=False)
    assert node_readiness(route, [READY, gone]).state == "ready"
    assert node_readiness(route, [replace(READY, living=False)]).state == "waiting"
    assert node_readiness(route, [replace(READY, state="refused")]).state == "failed"
    assert node_readiness(replace(route, challenger=None), [READY]).state == "failed"


def test_a_damaged_champion_does_not_keep_its_successor_from_being_released() -> None:
    route = Route(NAME, champion=1, challenger=2, generation=5)
    damaged = replace(READY, role="champion", version=1, state="refused", reason="its digest")
    lost = replace(damaged, role="previous")
    assert node_readiness(route, [damaged, READY, lost]).state == "ready"
    assert node_readiness(route, [damaged, lost]).state == "waiting", "nobody has tried it"
    assert serving_nodes(route, [damaged, READY]) == []
    assert champion_problems(route, [damaged]) == "node a: refused, its digest"
    served = replace(damaged, state="serving", reason="")
    assert serving_nodes(route, [served, replace(served, node="b", generation=4)]) == ["a"]


def test_no_release_begins_where_a_node_could_not_go_back() -> None:
    """A model that is still loading is waited for; one that is refused has to be mended."""
    route = Route(NAME, champion=1, previous=3, challenger=2, generation=5)
    good = replace(READY, role="champion", version=1, state="serving")
    before = replace(READY, role="previous", version=3)
    assert node_readiness(route, [READY, good, before]).state == "ready"
    for state, reason in (("refused", "its digest"), ("could_not", "memory"), ("loading", "")):
        bad = replace(before, state=state, reason=reason)
        found = node_readiness(route, [READY, good, bad])
        assert found.state == "waiting"
        assert "a has not loaded model 3, to which a rollback would go" in found.reason
        assert node_readiness(route, [READY, good, replace(bad, living=False)]).state == "ready"
        assert node_readiness(route, [READY, good, replace(bad, version=9)]).state == "ready"
    lost = [replace(one, state="refused") for one in (good, before)]
    assert node_readiness(route, [READY, *lost]).state == "ready", "the release is the repair"
    elsewhere = [replace(one, node="b") for one in (READY, good, lost[1])]
    assert "b has not loaded model 3" in node_readiness(route, [READY, *lost, *elsewhere]).reason


def test_a_refusal_names_the_node_and_its_reason_and_what_could_not_be_tried_waits() -> None:
    route = Route(NAME, challenger=2, generation=5)
    readiness = node_readiness(route, [replace(READY, state="refused", reason="golden rows")])
    assert readiness.reason == "node a refuses it: golden rows"
    readiness = node_readiness(route, [replace(READY, state="could_not", reason="no memory")])
    assert readiness.state == "waiting"
    assert readiness.reason.endswith("a could not yet: no memory")


def test_the_deferred_wait_has_an_answer_once_the_nodes_have_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "settings", lambda: desk.settings)
    desk.candidate(1)
    generation = desk.record_route(challenger=1)
    assert rollout.answered(NAME, "2026-03-01") is None
    ready = RoleReport("challenger", 1, "sha256:1", "ready")
    desk.records.nodes.report(NAME, "a", "boot", generation=generation, roles=[ready])
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
