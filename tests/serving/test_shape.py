"""A rollback is a swap: below a second on a really started node, whatever else hangs in it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from include.deployment.rollback import record_rollback
from tests.builders.serving import NAME, NOW, ROW, Desk, until
from tests.builders.stopwatch import Stopwatch

HANG = {
    # Each stands for what a sick disk, a sick database or a sick model does to one part.
    "trial": """
from include.serving import model_states
async def hang(folder, digest, pins, *, seconds):
    import asyncio
    if folder.endswith("/3") or folder.endswith("/4"):
        await asyncio.sleep(3600)
    return await tried(folder, digest, pins, seconds=seconds)
tried, model_states.trials.try_model = model_states.trials.try_model, hang
""",
    "read": """
from include.serving import model_states
def hang(folder, digest):
    import time
    if str(folder).endswith(("/3", "/4")):
        time.sleep(30)
    return verified(folder, digest)
verified, model_states.bundle.verify_bundle = model_states.bundle.verify_bundle, hang
""",
    "process": """
from include.serving.isolated_model import IsolatedModel
async def hang(*_, **__):
    import asyncio
    await asyncio.sleep(3600)
IsolatedModel.start = hang
""",
    "report": """
from include.records.nodes import Nodes
def hang(self, use_case, *_, **__):
    import time
    time.sleep(30)
Nodes.report = hang
""",
    "log": """
from include.predictions.log import PredictionLog
def hang(self):
    import time
    time.sleep(30)
PredictionLog.sync = hang
""",
}


@pytest.mark.parametrize("part", HANG)
def test_a_rollback_swaps_below_a_second_whatever_hangs(tmp_path: Path, part: str) -> None:
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    pins = "sha256:of another node" if part == "process" else None
    for version in (1, 2):
        desk.train(version)
    for version in (3, 4):  # the next previous, and a challenger: both are brought in, or hang
        desk.train(version, bento_tag="none:none", **({"pins": pins} if pins else {}))
    desk.record_route(champion=3)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    node = desk.node(HANG[part])
    with node as running:
        running.serves(2)
        until(
            lambda: running.health["roles"]["previous"]["state"] == "ready", what="previous model"
        )
        desk.record_route(challenger=4)
        assert running.predict(entity=1).status == 200
        time.sleep(1.2)  # the loops are in what hangs by now
        stopwatch = Stopwatch()
        answer = running.post(
            f"/v1/{NAME}/rollback",
            json={"reason": "bad", "version": 2},
            headers=running.token,
        )
        assert stopwatch.seconds < 1.0
        assert answer.status == 200, answer
        if answer.body.get("scope") == "this node only":
            # The records took longer than half a second, as those of a busy machine may.
            until(lambda: desk.records.routes.get(NAME).champion == 1, what="it on record")
        else:
            assert answer.body["generation"] == desk.records.routes.get(NAME).generation
        route = desk.records.routes.get(NAME)
        assert (answer.body["champion"], route.champion) == (1, 1)
        assert answer.body["served"]["answering"] == 1
        answered = running.predict(entity=1).body
        assert (answered["model_version"], answered["arm"]) == (1, "champion")
        assert route.previous == 3, "the next previous model is still on its way"
        assert running.process is not None
        running.process.kill()  # its threads hang


def test_a_rollback_by_another_hand_is_served_below_a_second(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    for version in (1, 2, 3):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    with desk.node(HANG["trial"]) as node:
        node.serves(2)
        until(lambda: node.health["roles"]["previous"]["state"] == "ready", what="previous model")
        desk.record_route(challenger=3)
        time.sleep(0.5)
        stopwatch = Stopwatch()
        record_rollback(desk.records, NAME, "anna", "bad")
        until(
            lambda: (
                node.predict(entity=1).body["arm"] == "champion"
                and node.predict(entity=1).body["model_version"] == 1
            ),
            what="swap",
        )
        assert stopwatch.seconds < 1.0
