"""A node says when the code on the disk is not what it runs, and imports nothing late."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from include.serving.code_stamp import CodeStamp
from include.serving.upkeep import read_sizes
from tests.builders.isolated import write_bento
from tests.builders.serving import NAME, NOW, ROW, Desk, until


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a tree of its own, which this process counts as imported."""
    path = tmp_path / "include" / "some.py"
    path.parent.mkdir()
    path.write_text("A = 1\n")
    one = ModuleType("some")
    one.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "some_module_of_a_test", one)
    return path


def test_a_file_that_holds_something_else_is_named(module: Path, tmp_path: Path) -> None:
    stamp = CodeStamp(tmp_path)
    assert stamp.restart_reason() == ""
    os.utime(module, (1, 1))  # checked out again
    assert stamp.restart_reason() == ""
    module.write_text("A = 2\n")
    assert stamp.find_changed() == ["include/some.py"]
    assert stamp.restart_reason().endswith("(include/some.py); restart the node")
    module.unlink()
    assert stamp.find_changed() == ["include/some.py"]
    module.write_text("A = 1\n")
    assert stamp.restart_reason() == "", "it was put back"


CHANGED = """
from include.serving import upkeep
upkeep.LOOK_SECONDS = 0.1
from include.serving.code_stamp import CodeStamp
from pathlib import Path
CodeStamp.find_changed = lambda self: Path({list!r}).read_text().split()
"""


def test_the_node_says_it_in_its_health_its_metrics_and_to_the_records(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    listed = tmp_path / "changed.txt"
    listed.write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sizes.json").write_text('{"lake": 12, "free": 34}')
    with desk.node(CHANGED.format(list=str(listed))) as node:
        node.serves(1)
        assert "restart" not in node.get("/health").body
        listed.write_text("include/a.py include/b.py include/c.py include/d.py")
        until(lambda: "restart" in node.get("/health").body, what="the hint")
        said = node.get("/health").body["restart"]
        assert said.startswith("the code on the disk is not what this node runs (include/a.py, ")
        assert "and 1 more" in said
        metrics = node.get("/metrics").body
        assert 'evergreen_code{state="changed"} 1.0' in metrics
        assert 'evergreen_home_bytes{part="lake"} 12.0' in metrics
        until(
            lambda: said in {report.reason for report in desk.records.nodes.of(NAME)},
            what="the hint in the records",
        )
        (report,) = desk.records.nodes.of(NAME)
        assert report.state == "serving", "it serves all the same"
        assert node.get("/health").body["use_cases"][NAME]["problems"] == []


# Notes what is imported of ours once the node answers.
LATE = """
import sys, threading
from include.serving import node as _node
class Late:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("include") and _started.is_set():
            open({noted!r}, "a").write(name + " ")
_started = threading.Event()
sys.meta_path.insert(0, Late())
_ready = _node.Reconciler.ready_to_serve
async def ready(self, seconds):
    _started.set()
    await _ready(self, seconds)
_node.Reconciler.ready_to_serve = ready
"""


def test_a_running_node_imports_nothing_of_ours_any_more(tmp_path: Path) -> None:
    """After an upgrade under it, it would be the code of another version: at a rollback, first."""
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    desk.train(1)
    desk.train(2, pins="sha256:other", bento_tag=write_bento(tmp_path))
    desk.record_route(champion=1)
    noted = tmp_path / "late.txt"
    noted.write_text("")
    with desk.node(LATE.format(noted=str(noted))) as node:
        node.serves(1)
        desk.record_route(champion=2, previous=1)
        node.serves(2)
        assert node.predict(entity=1).status == 200
        order = {"reason": "bad", "version": 2}
        rolled = node.post(f"/v1/{NAME}/rollback", json=order, headers=node.token)
        assert rolled.status == 200
        for path in ("/metrics", "/docs", "/openapi.json", f"/v1/{NAME}/model", "/ready"):
            assert node.get(path).status == 200
        assert node.post(f"/v1/{NAME}/reload", headers=node.token).status == 200
        assert node.predict(features={"income": "x"}).status == 422
    assert noted.read_text() == ""


@pytest.mark.parametrize("text", [None, "", "[]", '{"a": "x"}', '{"a": null}'])
def test_sizes_that_cannot_be_read_are_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "sizes.json").write_text(text)
    assert read_sizes(tmp_path / "sizes.json") == {}
