"""Releases against a real node: compare-and-set, last good, holds, what is skipped and why."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.deployment import deploy_model, rollout
from include.deployment.rollback import record_rollback
from include.errors import ArtefactError, Conflict, MissingPartition, Unavailable
from include.predictions.entity_hash import entity_hasher
from include.records.records import RoleReport, Route
from include.serving.access import Access
from include.serving.app import App
from include.serving.reconciler import Reconciler
from tests.builders.serving import FIRST, NAME, Desk, until
from tests.builders.stopwatch import Stopwatch

SECOND, THIRD, FOURTH = "2026-03-02", "2026-03-03", "2026-03-04"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class Follower:
    """The node's reconciler and application in a thread, without its socket: quick to start for
    every test.
    """

    def __init__(self, desk: Desk) -> None:
        async def refuse(*_: str) -> dict[str, str]:
            raise Conflict("nobody asks this node")

        self._desk = desk
        self._stop = threading.Event()
        home = desk.settings.home
        self._app = App(
            access=Access([]),
            home=home,
            hasher=lambda: entity_hasher("a key of the tests"),
            rollback=refuse,
            reload=refuse,
        )
        self.thread = threading.Thread(target=lambda: asyncio.run(self._follow()))

    async def _follow(self) -> None:
        reconciler = Reconciler(self._desk.settings, self._app, node="follower")
        task = asyncio.create_task(reconciler.run())
        await asyncio.to_thread(self._stop.wait)
        task.cancel()
        await reconciler.close()

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()

    @property
    def version(self) -> int | None:
        served = self._app.table.served.get(NAME)
        return served.champion.version if served and served.champion else None

    def serves(self, version: int) -> None:
        until(lambda: self.version == version, what=f"model {version}")


@pytest.fixture
def node(desk: Desk) -> Iterator[Follower]:
    follower = Follower(desk)
    follower.thread.start()
    yield follower
    follower.stop()


def roll_back(desk: Desk, reason: str = "bad") -> Route:
    return record_rollback(desk.records, NAME, "person", reason)


def test_releases_follow_one_another_and_a_rerun_changes_nothing(
    desk: Desk, node: Follower
) -> None:
    desk.candidate(1)
    first = desk.deploy()
    assert (first.state, first.outputs["champion"]) == ("done", 1)
    node.serves(1)
    desk.candidate(2, SECOND)
    assert desk.deploy(SECOND).outputs["champion"] == 2
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.previous, route.challenger, route.watermark) == (
        2,
        1,
        None,
        SECOND,
    )
    again = desk.deploy(SECOND)
    assert (again.state, again.digest) == ("done", desk.deploy(SECOND).digest)
    older = desk.deploy(FIRST)
    assert (older.state, older.reason) == (
        "done",
        "it was released, and model 2 has replaced it since",
    )
    assert desk.records.routes.get(NAME) == route
    assert {model.version: model.state for model in desk.records.models.of(NAME)} == {
        1: "released",
        2: "released",
    }
    actions = [
        entry.action
        for entry in desk.records.audit.entries(NAME)
        if entry.action.startswith("release.")
    ]
    assert actions == ["release.requested", "release.promoted"] * 2
    assert desk.records.audit.verify() is None


def test_the_three_steps_of_a_dag(desk: Desk, node: Follower) -> None:
    desk.candidate(1)
    asked = desk.deploy(phase="request")
    assert (asked.state, asked.outputs) == ("waiting", {"version": 1})
    assert asked.reason == "waiting for a serving node to try model 1"
    assert desk.records.routes.get(NAME).challenger == 1
    with desk.context("deploy_model") as context:
        until(lambda: deploy_model.observe_nodes(context).state == "ready", what="the node's trial")
    assert node.version is None
    assert desk.deploy(phase="begin").state == "done"
    node.serves(1)


def test_without_a_verdict_nothing_can_be_released(desk: Desk) -> None:
    desk.ask(FIRST)
    with (
        desk.context("deploy_model") as context,
        pytest.raises(MissingPartition, match="evergreen run evaluate_model"),
    ):
        deploy_model.inputs(context)


def test_without_a_node_nothing_is_released(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for the answer of a node that is not there, and what is missing is said
    before the wait.
    """
    desk.candidate(1)
    monkeypatch.setattr(deploy_model, "NODE_SECONDS", 0.3)
    stopwatch = Stopwatch()
    with pytest.raises(Unavailable, match="evergreen serve"):
        desk.deploy()
    assert stopwatch.seconds < 60
    assert (
        "no serving node follows this use case; start one with `evergreen serve`; waiting"
        in caplog.text
    )
    assert desk.records.routes.get(NAME).champion is None


def test_an_older_partition_never_replaces_a_newer_one(desk: Desk, node: Follower) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    roll = desk.candidate(1, FIRST)
    desk.judge(roll, again=True)
    outcome = desk.deploy(FIRST)
    assert outcome.state == "skipped"
    assert "older partition" in outcome.reason


def test_a_candidate_judged_against_another_champion_is_judged_again(
    desk: Desk, node: Follower
) -> None:
    late = desk.candidate(2, SECOND)  # judged while nobody served
    desk.candidate(1)
    desk.deploy()
    with pytest.raises(Conflict, match="judge it again"):
        desk.deploy(SECOND)
    desk.judge(late, again=True)
    assert desk.deploy(SECOND).outputs["champion"] == 2


def test_a_candidate_that_equals_the_champion_has_nothing_to_release(
    desk: Desk, node: Follower
) -> None:
    desk.candidate(1)
    desk.deploy()
    desk.candidate(2, SECOND, seed=1)
    outcome = desk.deploy(SECOND)
    assert (outcome.state, outcome.outputs["champion"]) == ("done", 1)
    assert "equals the champion" in outcome.reason


def test_rollback_goes_to_the_last_good_model(desk: Desk, node: Follower) -> None:
    desk.candidate(1, FIRST)
    desk.deploy(FIRST)
    for version, key in ((2, SECOND), (3, THIRD)):  # two bad releases in a row
        desk.candidate(version, key)
        desk.deploy(key)
        node.serves(version)
        route = roll_back(desk)
        assert (route.champion, route.challenger, route.watermark) == (1, None, key)
        node.serves(1)
        assert desk.deploy(key).state == "held"
    desk.candidate(4, FOURTH)
    desk.deploy(FOURTH)
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.previous) == (4, 1)
    assert len(route.held) == 2
    assert roll_back(desk).champion == 1


def test_only_a_person_lifts_a_hold(desk: Desk, node: Follower) -> None:
    desk.candidate(1)
    desk.deploy()
    bad = desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    roll_back(desk)
    twin = desk.candidate(3, THIRD, seed=2)
    assert desk.deploy(THIRD).state == "held"  # the hold is on the digest, not on the version
    rollout.release_hold(desk.settings, NAME, 2, "person", "it was the data")
    desk.judge(bad, again=True)
    desk.judge(twin, again=True)
    assert desk.deploy(THIRD).outputs["champion"] == 3
    with pytest.raises(Conflict, match="not held"):
        rollout.release_hold(desk.settings, NAME, 3, "person", "again")


def test_a_model_whose_hold_was_lifted_is_released_again_by_its_own_partition(
    desk: Desk, node: Follower
) -> None:
    """That it was released once does not count: it was taken back since."""
    desk.candidate(1)
    desk.deploy()
    bad = desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    roll_back(desk)  # what is on record of the second partition is still that release
    rollout.release_hold(desk.settings, NAME, 2, "person", "it was the data")
    desk.judge(bad, again=True)
    assert desk.deploy(SECOND).outputs["champion"] == 2
    node.serves(2)


def test_a_release_that_nobody_serves_is_not_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_model, "SERVED_SECONDS", 0.3)
    model = desk.candidate(1)
    with desk.context("deploy_model", FIRST, phase="request") as context:
        deploy_model.compute(context)

    def say(role: str, state: str) -> None:
        report = RoleReport(role, 1, model.model_digest, state)
        generation = desk.records.routes.get(NAME).generation
        desk.records.nodes.report(NAME, "one", "boot", generation=generation, roles=[report])

    say("challenger", "ready")
    with pytest.raises(Unavailable, match="is champion, but no node serves it yet"):
        desk.deploy(phase="begin")
    with pytest.raises(Unavailable, match="no node serves it yet"):
        desk.deploy()
    say("champion", "serving")
    assert desk.deploy().state == "done"


def test_a_rollback_wins_over_a_release_on_its_way(desk: Desk, node: Follower) -> None:
    desk.candidate(1)
    desk.deploy()
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    desk.candidate(3, THIRD)
    desk.deploy(THIRD, phase="request")
    roll_back(desk)
    outcome = desk.deploy(THIRD, phase="begin")
    assert outcome.state == "held"
    assert "before the last rollback" in outcome.reason
    assert desk.records.routes.get(NAME).champion == 1


def test_a_damaged_candidate_is_withdrawn_and_the_champion_goes_on(
    desk: Desk, node: Follower
) -> None:
    desk.candidate(1)
    desk.deploy()
    bad = desk.candidate(2, SECOND)
    (Path(bad.bundle) / "model.txt").write_text("changed")
    with pytest.raises(ArtefactError, match="digest"):
        desk.deploy(SECOND)
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.challenger) == (1, None)
    assert [entry.action for entry in desk.records.audit.entries(NAME)][-1] == "release.withdrawn"
    withdrawn = desk.records.models.get(NAME, 2)
    assert withdrawn is not None
    assert withdrawn.state == "retired", "it is no challenger any more, for MLflow's alias neither"
    node.serves(1)


def test_of_many_rollbacks_and_promotions_at_once_one_wins_each_generation(
    desk: Desk, node: Follower
) -> None:
    desk.candidate(1)
    desk.deploy()
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    generation = desk.records.routes.get(NAME).generation
    outcomes: list[str] = []

    def attempt() -> None:
        try:
            record_rollback(desk.records, NAME, "person", "bad", expect_generation=generation)
            outcomes.append("won")
        except Conflict:
            outcomes.append("lost")

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    assert desk.records.routes.get(NAME).generation == generation + 1
    assert desk.records.audit.verify() is None
