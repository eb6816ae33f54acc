"""Two nights in a row, live, with a real serving node that is asked all the time; then an old
night again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from include.pipeline.flow import STAGES
from tests.builders.installation import Installation
from tests.builders.ports import free_port
from tests.builders.serving import Node, until
from tests.e2e.conftest import DAYS, YAML, write_data

LAST = date(2026, 3, 26)
NIGHTS = ("2026-03-25", "2026-03-26")


@pytest.fixture
def shop(tmp_path: Path) -> Installation:
    """Visits of `DAYS` days, loaded up to the first night."""
    write_data(tmp_path / "usecases" / "data", LAST)
    text = YAML.format(name="visits", history="{first: 2026-03-01, last: 2026-03-26}")
    (tmp_path / "usecases" / "visits.yaml").write_text(
        text.replace("gates: {", "gates: {margin: 0.6, ")
    )
    made = Installation(tmp_path, "visits", node_port=free_port())
    made.load("2026-03-01", "2026-03-24")
    return made


class Caller(threading.Thread):
    """Ask for a prediction again and again and keep what was not answered by a model."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node, self.done = node, threading.Event()
        self.failed: list[object] = []
        self.versions: list[int] = []

    def run(self) -> None:
        while not self.done.wait(0.02):
            answer = self.node.post("/v1/visits/predict", json={"entity": 7})
            if answer.status != 200:
                self.failed.append((answer.status, answer.body))
            elif not self.versions or self.versions[-1] != answer.body["model_version"]:
                self.versions.append(answer.body["model_version"])


@pytest.fixture
def node(shop: Installation) -> Iterator[Node]:
    made = Node(shop.settings)
    made.start()
    yield made
    made.stop()


def night(made: Installation, key: str) -> dict[str, str]:
    return {
        stage: report.state
        for stage, report in made.day(key, STAGES, mode="live", target="deployed").items()
    }


@pytest.mark.slow
def test_two_nights_in_a_row_and_an_old_one_again(shop: Installation, node: Node) -> None:
    assert DAYS == 26
    states = night(shop, NIGHTS[0])
    assert states["deploy_model"] == "done", (
        states,
        shop.result("evaluate_model", NIGHTS[0]).outputs["reasons"],
    )
    first = shop.records.routes.get("visits")
    assert (first.champion, first.previous, first.watermark) == (1, None, NIGHTS[0])
    until(
        lambda: node.post("/v1/visits/predict", json={"entity": 7}).status == 200,
        what="first answer",
    )

    caller = Caller(node)
    caller.start()
    states = night(shop, NIGHTS[1])
    assert states["deploy_model"] == "done", (
        states,
        shop.result("evaluate_model", NIGHTS[1]).outputs["reasons"],
    )
    judged = shop.result("evaluate_model", NIGHTS[1]).outputs
    assert judged["opponent"] == 1
    second = shop.records.routes.get("visits")
    assert (second.champion, second.previous, second.challenger) == (2, 1, None)
    assert second.watermark == NIGHTS[1]
    until(lambda: caller.versions[-1:] == [2], what="the new champion")

    live = shop.live_state()
    night(shop, NIGHTS[0])
    assert shop.live_state() == live, "an older partition must not touch what a newer one made live"
    night(shop, NIGHTS[1])
    assert shop.live_state() == live, "the same night again has nothing to do"
    caller.done.set()
    caller.join(10)
    assert caller.failed == [], "a release must not fail one request"
    assert caller.versions == [1, 2]
    assert len(shop.records.models.of("visits")) == 2
    assert shop.records.audit.verify() is None
    raised = [
        entry.subject
        for entry in shop.records.audit.entries("visits", action="partition.raised")
        if entry.actor == "test"
    ]
    assert set(NIGHTS) <= set(raised)
