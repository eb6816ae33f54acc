"""A release at a really started node: who is asked, and that no request fails whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.serving.assignment import Assignment
from tests.builders.challenger import PATIENT
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, NOW, ROW, Desk, Node, until
from tests.builders.stopwatch import Stopwatch

ENTITIES = 100
THREADS = 4


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.publish(dict.fromkeys(range(ENTITIES), (NOW, ROW)))
    for version in (1, 2):
        made.train(version)
    made.record_route(champion=1)
    return made


def begun(desk: Desk, node: Node, *shares: int, **plan: Any) -> Releasing:
    """Bring a release of version 2 into its last step, with the judge heard by the node."""
    node.serves(1)
    releasing = Releasing(desk, 2, *shares, **plan)
    until(lambda: state_of(node) == "ready", what="tried challenger")
    releasing.begin()
    for _ in shares[1:]:
        releasing.advance()
    releasing.beat(seconds=600.0)  # longer than a busy machine takes for all of a test
    until(lambda: release_of(node).get("share") == shares[-1] / 100, what="share")
    return releasing


def state_of(node: Node, role: str = "challenger") -> str:
    return str(node.health.get("roles", {}).get(role, {}).get("state", ""))


def release_of(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.health.get("release", {})
    return found


def own_process(node: Node) -> psutil.Process:
    """Return the process of the node's challenger."""
    assert node.process is not None
    (found,) = (
        child
        for child in psutil.Process(node.process.pid).children(recursive=True)
        if "include.packaging.bento.worker" in child.cmdline()
    )
    return found


class Asked:
    """What came of requests that were asked without a pause."""

    def __init__(self) -> None:
        self.failed: list[object] = []
        self.arms, self.flags = Counter[str](), Counter[str]()
        self.slowest = 0.0


@contextlib.contextmanager
def asking(desk: Desk) -> Iterator[Asked]:
    """Ask by entity, by row, and partly by both, until the block ends."""
    stop, lock, asked = threading.Event(), threading.Lock(), Asked()

    def ask(start: int) -> None:
        client, number = Node(desk.settings), start
        while not stop.is_set():
            number += 1
            entity = number * 7 % ENTITIES
            bodies: list[dict[str, Any]] = [
                {"entity": entity},
                {"features": {**ROW, "jobs": entity}},
                {"entity": entity, "features": {"income": 7.0}},
            ]
            stopwatch = Stopwatch()
            answer = client.predict(**bodies[number % 3])
            with lock:
                asked.slowest = max(asked.slowest, stopwatch.seconds)
                if answer.status != 200:
                    asked.failed.append(answer)
                    continue
                asked.arms[answer.body["arm"]] += 1
                asked.flags.update(answer.body["flags"])

    threads = [threading.Thread(target=ask, args=(number * 31,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def arms_of(node: Node) -> list[str]:
    """Return which arm answers each entity; a challenger that is late is asked once more.

    A busy machine may be late, and the champion answers for it then.
    """

    def arm_of(entity: int) -> str:
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            answers.append(node.predict(entity=entity).body)
            return "fallback" not in answers[-1]["flags"]

        until(answered, what=f"answer to {entity} by whom it is meant for")
        return str(answers[-1]["arm"])

    return [arm_of(entity) for entity in range(ENTITIES)]


def reasons(desk: Desk) -> set[str]:
    """Return why other models have answered than those that requests were meant for."""
    segments = closed_segments(desk.settings.home, NAME)
    return {line["reason"] for line in read(segments).to_pylist() if line["reason"]}


def more(asked: Asked, arm: str, count: int = 20) -> None:
    """Wait until an arm has answered so many more requests."""
    least = asked.arms[arm] + count
    until(lambda: asked.arms[arm] >= least, what=f"answers of the {arm}")


def test_the_entities_of_a_step_are_answered_by_the_challenger_and_those_after_a_restart_wait(
    desk: Desk,
) -> None:
    with desk.node(PATIENT) as node:
        releasing = begun(desk, node, 0, 2500)
        route = desk.records.routes.get(NAME)
        places = Assignment(bytes.fromhex(route.release_key or ""))
        meant = ["challenger" if places.place(n) < 2500 else "champion" for n in range(ENTITIES)]
        assert arms_of(node) == meant
        assert {"champion", "challenger"} == set(meant)
        told = node.post(
            f"/v1/{NAME}/predict", json={"entity": 1}, headers={"x-evergreen-explain": "1"}
        ).headers
        assert told["x-evergreen-release"] == f"{releasing.release.id}/1"

        node.stop()
        node.start()
        until(lambda: state_of(node) == "ready", what="challenger after a restart")
        unheard = "no beat of the judge since its start"
        until(lambda: release_of(node).get("withheld", "").endswith(unheard), what="a look")
        time.sleep(0.5)
        assert release_of(node)["withheld"].endswith(unheard)
        assert {node.predict(entity=n).body["arm"] for n in range(ENTITIES)} == {"champion"}
        releasing.beat(seconds=600.0)
        until(lambda: release_of(node).get("share") == 25, what="share after a beat")
        assert arms_of(node) == meant


def test_a_judge_that_is_not_heard_any_more_takes_its_traffic_home(desk: Desk) -> None:
    with desk.node(PATIENT) as node, asking(desk) as asked:
        releasing = begun(desk, node, 5000)
        more(asked, "challenger")
        releasing.beat(seconds=1.0)
        until(lambda: release_of(node).get("share") == 0, what="end of the deadline")
        assert "no new beat of the judge for 1 s" in release_of(node)["withheld"]
        before = asked.arms["challenger"]
        more(asked, "champion")
        assert asked.arms["challenger"] <= before + THREADS  # those that were on their way

        def said() -> list[str]:
            return [one.reason for one in desk.records.nodes.of(NAME) if one.role == "challenger"]

        until(lambda: any("no new beat" in one for one in said()), what="observation")
        assert f'evergreen_release_withheld{{use_case="{NAME}"}} 1.0' in node.get("/metrics").body
        releasing.beat(seconds=600.0)
        more(asked, "challenger")
    assert asked.failed == []
    assert reasons(desk) <= {"model_late"}, "a busy machine may be late, and no more than that"


@pytest.mark.parametrize("end", ["abort", "roll_back", "suspend", "promote"])
def test_a_step_that_ends_under_load_fails_no_request(desk: Desk, end: str) -> None:
    with desk.node(PATIENT) as node, asking(desk) as asked:
        releasing = begun(desk, node, 5000, watch=3600.0)
        more(asked, "challenger")
        getattr(releasing, end)()
        if end == "promote":
            until(lambda: node.health["model_version"] == 2, what="new champion")
            more(asked, "champion")
            model = f"/v1/{NAME}/model"
            until(lambda: node.get(model).body["champion"]["in_process"], what="load")
            more(asked, "champion")
            assert release_of(node)["state"] == "watched"
        else:
            until(lambda: not release_of(node).get("share"), what="way home")
            before = asked.arms["challenger"]
            more(asked, "champion", 50)
            assert asked.arms["challenger"] <= before + THREADS
            assert node.health["model_version"] == 1
        assert 'event="direct_failed"' not in node.get("/metrics").body
    assert asked.failed == []
    assert reasons(desk) <= {"model_late"}, "a busy machine may be late, and no more than that"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_challenger_whose_process_ends_or_stands_still_fails_no_request(
    desk: Desk, number: signal.Signals
) -> None:
    with desk.node() as node, asking(desk) as asked:
        begun(desk, node, 5000)
        more(asked, "challenger")
        process = own_process(node)
        os.kill(process.pid, number)
        until(lambda: asked.flags["fallback"] > 20, what="answers of the champion")
        assert asked.failed == []
        assert asked.slowest < 2.0, "the deadline, and what a busy machine adds"
        if number == signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
        before = asked.arms["challenger"]
        # Started anew, or heard again by a probe; or the guard has seen enough of it.
        until(
            lambda: (
                asked.arms["challenger"] > before + THREADS
                or "guard" in release_of(node).get("withheld", "")
            ),
            what="end of the failures",
            seconds=90,
        )
        fallbacks = asked.flags["fallback"]
        more(asked, "champion")
        assert asked.flags["fallback"] <= fallbacks + THREADS
        text = node.get("/metrics").body
        labels = f'answering="champion",assigned="challenger",use_case="{NAME}"'
        assert f"evergreen_release_answers_total{{{labels}}}" in text
    assert asked.failed == []
    assert set(asked.flags) == {"fallback"}
    assert reasons(desk) <= {"model_failed", "model_late"}
    assert reasons(desk)


@pytest.mark.slow
def test_a_node_that_starts_without_records_gives_the_challenger_nothing(desk: Desk) -> None:
    database = Path(desk.settings.records_address.partition("sqlite:///")[2])
    with desk.node() as node:
        releasing = begun(desk, node, 5000)
        node.stop()
        releasing.beat()
        files = list(database.parent.glob(f"{database.name}*"))
        for path in files:
            path.rename(path.with_name(f"away-{path.name}"))
        node.start(healthy=False)
        node.serves(1)
        until(lambda: state_of(node) == "ready", what="challenger")
        assert "the records are away" in release_of(node)["withheld"]
        assert {node.predict(entity=n).body["arm"] for n in range(ENTITIES)} == {"champion"}
        for path in files:
            path.with_name(f"away-{path.name}").rename(path)
        until(
            lambda: "since its start" in release_of(node).get("withheld", ""), what="records again"
        )
        releasing.beat()
        until(lambda: release_of(node).get("share") == 50, what="share")
