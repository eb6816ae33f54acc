"""Releases in steps on two nodes in containers, under load: judged by Celery's workers and the
triggerer, through a node that is killed and one that stays away.

The tests of this file run in their order, on the containers of the folder's other tests.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from include.clock import utc_now
from include.deployment.window_sums import StepWindows
from include.records.records import Release
from tests.builders.containers import Load
from tests.compose.conftest import USE_CASE, Stack
from tests.compose.test_containers import BODIES, NODES, ROWS, is_whole
from tests.e2e.installations import Composed
from tests.e2e.test_release import champion, ended, newest, shown, steer, train_another

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]

ENTITIES = len(BODIES)
CALLERS, PAUSE = 3, 0.03  # some sixty requests a second beside everything else of a small machine
STEPS = {"shadow", "share_25"}
RELEASE = """release:
  thin: hold
  beat: 30s
  watch: 20s
  steps:
    - {{share: 0, bake: 5s, requests: 40, entities: 10, deadline: 10m}}
    - {{share: 25, bake: {bake}s, requests: 40, entities: 2, deadline: 30m}}
"""
EXPIRES = 60 + 20  # seconds until a dead node's sign of life is believed no more, and a look


@pytest.fixture(scope="module")
def served(stack: Stack) -> Iterator[Composed]:
    """The containers with a champion, and a use case whose releases take steps."""
    stack.write(back=1)
    if stack.ask().status_code != 200:
        stack.script("job", USE_CASE=USE_CASE)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.variables.items():
            patch.setenv(name, value)
        composed = Composed()
        write_plan(stack, bake=45)
        composed.wait(
            lambda: composed.api.task_ids(f"{USE_CASE}__deploy_model") >= STEPS, "its steps", 180
        )
        yield composed
    stack.write(back=1)


def write_plan(stack: Stack, *, bake: int) -> None:
    """Let the next release take steps of seconds: so many for that of 25 %."""
    path = stack.usecases / f"{USE_CASE}.yaml"
    text, _, _ = path.read_text().partition("release:")
    path.write_text(text + RELEASE.format(bake=bake))


def start_release(served: Composed, champion_of_now: int) -> Release:
    """Have another model trained by Airflow, and return its release once it is in its steps."""
    train_another(served)

    def is_begun() -> bool:
        release = newest(served)
        return release.state == "running" and release.champion == champion_of_now

    served.wait(is_begun, "release in its steps", 240, every=1.0)
    return newest(served)


def named(service: str) -> str:
    """Return how a node is named on record."""
    return f"{service}:8600"


def load_of(stack: Stack) -> Load:
    address, token = stack.address("balancer", 8600), stack.secret("caller_token")
    return Load(address, token, USE_CASE, BODIES + ROWS, PAUSE)


def assigned(stack: Stack, node: str, version: int) -> set[int]:
    """Return the entities that a node means for the challenger, asked of it in one request."""
    answer = httpx.post(
        f"{stack.node(node)}/v1/{USE_CASE}/batch",
        json={"rows": [{"entity": entity} for entity in range(1, ENTITIES + 1)]},
        headers={"authorization": f"Bearer {stack.secret('caller_token')}"},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    # Of a challenger that is late on a busy machine the champion answers, flagged so.
    return {
        one["entity"]
        for one in answer.json()["results"]
        if one.get("model_version") == version or "fallback" in one.get("flags", ())
    }


def until_shared(stack: Stack, nodes: tuple[str, ...], version: int) -> set[int]:
    """Wait until each of the nodes means some entities for the challenger; return them."""
    found: list[set[int]] = []

    def is_shared() -> bool:
        found[:] = [assigned(stack, node, version) for node in nodes]
        return all(found)

    stack.until(is_shared, f"shares of {nodes}", 60)
    assert all(one == found[0] for one in found), f"the nodes differ in whom they ask: {found}"
    return found[0]


def evidence(served: Composed, release: Release) -> StepWindows:
    """Return what the nodes have counted of the step in which a release is."""
    windows = served.records.releases.windows(USE_CASE, release.id, step=release.step)
    return StepWindows(windows, release.step)


def until_verdict(
    served: Composed, what: str, there: Callable[[dict[str, Any]], bool], seconds: float
) -> None:
    """Wait for a verdict on the release under way; of none that ends it."""

    def is_there() -> bool:
        release = newest(served)
        assert release.state == "running", f"{release.state}: {release.reason}"
        return bool(release.verdicts) and there(dict(release.verdicts[-1]))

    served.wait(is_there, f"verdict: {what}", seconds, every=1.0)


def say(case: str, end: str, since: float, load: Load) -> None:
    took = f"{time.monotonic() - since:.0f}"
    sys.stdout.write(f"| {case} | {end} | {took} | {load.came.total()} | {load.failed or 0} |\n")


def test_a_release_goes_through_its_steps_on_both_nodes_to_the_champion(
    stack: Stack, served: Composed
) -> None:
    began, before = utc_now(), champion(served)
    with load_of(stack).running(CALLERS) as load:
        release = start_release(served, before)
        since, version = time.monotonic(), release.challenger
        served.wait(lambda: newest(served).step == 1, "step of 25 %", 120)
        entities = until_shared(stack, NODES, version)
        assert len(entities) < ENTITIES / 2
        run = ended(served, began)
        assert run.state == "success", shown(served, run)
        say("two nodes, a healthy model", newest(served).state, since, load)
        stack.until(lambda: set(stack.versions().values()) == {version}, "it on both nodes", 60)
    assert load.lost == {}, load.came
    assert (newest(served).state, champion(served)) == ("promoted", version)
    found = evidence(served, replace(release, step=1))
    answered = {one.window.node for one in found.counted if one.window.answering == "challenger"}
    assert answered == {named(node) for node in NODES}, "not both nodes answered by it"
    hosts = stack.query(
        "airflow-postgres",
        f"select distinct hostname from task_instance where run_id = '{run.run_id}'"
        f" and dag_id = '{run.dag_id}' and hostname <> ''",
    ).split()
    workers = {container[:12] for container in stack.ids("worker")}
    assert set(hosts) <= workers, (hosts, workers)


def test_a_release_goes_on_without_a_node_and_is_rolled_back_by_a_person(
    stack: Stack, served: Composed
) -> None:
    """One node is killed in the step and is back, the other one is killed and stays away."""
    write_plan(stack, bake=60)  # what follows takes longer, and a pause has to be in time
    began, before = utc_now(), champion(served)
    (first,), (second,) = stack.ids("node-1"), stack.ids("node-2")
    with load_of(stack).running(CALLERS) as load:
        release = start_release(served, before)
        since, version = time.monotonic(), release.challenger
        served.wait(lambda: newest(served).step == 1, "step of 25 %", 120)
        # It is judged all the same, and says *pass* where it would go on.
        steer(served, action="pause", reason="two nodes are to die")
        shared = until_shared(stack, NODES, version)
        # Of a start that is killed before it has counted anything of the step nobody hears.
        time.sleep(10)
        stack.kill(first)
        time.sleep(3)
        stack.compose("start", "node-1")
        stack.until(lambda: is_whole(stack), "node-1", 120)

        def is_recounted() -> bool:
            seen, found = served.records.nodes.of(USE_CASE), evidence(served, newest(served))
            return found.unclean_ends(seen)[named("node-1")] == 1 and not found.unknown_ends(seen)

        served.wait(is_recounted, "count of what the killed start answered", 60, every=1.0)
        assert until_shared(stack, NODES, version) == shared, "it asks others than before"
        until_verdict(served, "it goes on", lambda told: told["word"] == "pass", 90)

        stack.kill(second)

        def is_alone() -> bool:
            return {one.node for one in served.records.nodes.of(USE_CASE) if one.living} == {
                named("node-1")
            }

        served.wait(is_alone, "end of the belief in node-2", EXPIRES, every=1.0)
        before_it = newest(served).verdicts[-1]["at"]
        until_verdict(
            served,
            "it goes on with one node",
            lambda told: told["word"] == "pass" and told["at"] != before_it,
            60,
        )
        assert until_shared(stack, NODES[:1], version) == shared
        back = ("rollback", USE_CASE, "--challenger", "--version", str(version))
        stack.command(*back, "--reason", "it was a drill", "--yes")
        run = ended(served, began)
        say("one node killed, one dead, then rolled back", newest(served).state, since, load)
        stack.compose("start", "node-2")
        stack.until(lambda: is_whole(stack), "node-2", 120)
        stack.until(lambda: set(stack.versions().values()) == {before}, "the champion on both", 60)
        assert assigned(stack, "node-2", version) == set()
    assert load.lost == {}, load.came
    assert run.state == "failed", shown(served, run)
    route = served.records.routes.get(USE_CASE)
    assert (newest(served).state, route.champion, route.challenger) == ("rolled_back", before, None)
    assert release.challenger_digest in route.held
    assert "whole" in stack.command("audit", "verify")
