"""Each input of a node is taken away, damaged or held up while it is asked, and given back.

No request fails meanwhile, and a rollback in the middle of it is served below a second; what was
done without the records is in them afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from include.clock import utc_now
from include.records.records import AuditEntry, Route
from tests.builders.asking import Asking, asking
from tests.builders.isolated import write_bento
from tests.builders.serving import NAME, NOW, ROW, Desk, Node, until
from tests.builders.stopwatch import Stopwatch

FAST = """
from include.serving import row_source, rollbacks
row_source.RETRY_SECONDS = 0.5  # as if it looked for longer
rollbacks.REPLAY_SECONDS = 0.1
"""


# Faults: each is a context, at whose end all is as it was.


@contextlib.contextmanager
def records_gone(desk: Desk) -> Iterator[None]:
    """The database is away, and something that is none lies in its place."""
    with _aside(desk, sorted(desk.settings.home.glob("records.db*"))):
        path = desk.settings.home / "records.db"
        path.mkdir()
        yield
        path.rmdir()


@contextlib.contextmanager
def records_damaged(desk: Desk) -> Iterator[None]:
    with _aside(desk, sorted(desk.settings.home.glob("records.db*"))):
        (desk.settings.home / "records.db").write_bytes(b"no database at all " * 500)
        yield
        for path in desk.settings.home.glob("records.db*"):
            path.unlink()


@contextlib.contextmanager
def records_locked(desk: Desk) -> Iterator[None]:
    """Somebody holds the one lock that a writer needs."""
    holder = sqlite3.connect(desk.settings.home / "records.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


@contextlib.contextmanager
def bundles_gone(desk: Desk) -> Iterator[None]:
    with _aside(desk, [desk.settings.home / "models"]):
        yield


@contextlib.contextmanager
def bundles_damaged(desk: Desk) -> Iterator[None]:
    paths = [path for path in (desk.settings.home / "models").rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.write_bytes(b"damaged")
    yield
    for path, content in contents.items():
        path.write_bytes(content)


@contextlib.contextmanager
def online_gone(desk: Desk) -> Iterator[None]:
    with _aside(desk, [desk.settings.home / "online"]):
        yield


@contextlib.contextmanager
def online_replaced_by_rubbish(desk: Desk) -> Iterator[None]:
    folder = desk.settings.home / "online"
    with _aside(desk, sorted(folder.glob("*"))):
        (folder / f"{NAME}.db").write_bytes(b"no database at all " * 500)
        yield
        for path in folder.glob(f"{NAME}.db*"):
            path.unlink()


@contextlib.contextmanager
def online_locked(desk: Desk) -> Iterator[None]:
    holder = sqlite3.connect(desk.settings.home / "online" / f"{NAME}.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


@contextlib.contextmanager
def log_folder_gone(desk: Desk) -> Iterator[None]:
    with _aside(desk, [desk.settings.home / "predictions"]):
        yield


@contextlib.contextmanager
def own_folder_gone(desk: Desk) -> Iterator[None]:
    """Its last rows and its journal lie there."""
    shutil.rmtree(desk.settings.home / "serving")
    yield


@contextlib.contextmanager
def use_cases_gone(desk: Desk) -> Iterator[None]:
    with _aside(desk, [desk.usecases]):
        yield


@contextlib.contextmanager
def _aside(desk: Desk, paths: list[Path]) -> Iterator[None]:
    desk.records.close()
    for path in paths:
        path.rename(path.with_name(f"away-{path.name}"))
    try:
        yield
    finally:
        for path in paths:
            if path.is_dir():  # made anew meanwhile
                shutil.rmtree(path)
            path.with_name(f"away-{path.name}").rename(path)


FAULTS: list[Callable[[Desk], AbstractContextManager[None]]] = [
    records_gone,
    records_damaged,
    records_locked,
    bundles_gone,
    bundles_damaged,
    online_gone,
    online_replaced_by_rubbish,
    online_locked,
    log_folder_gone,
    own_folder_gone,
    use_cases_gone,
]
WITHOUT_RECORDS = (records_gone, records_damaged, records_locked)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("inputs"))
    made.publish({1: (NOW, ROW)})
    for version in (1, 2):
        made.train(version)
    made.record_route(champion=1)
    made.record_route(champion=2, previous=1)
    return made


@pytest.fixture(scope="module")
def node(desk: Desk) -> Iterator[Node]:
    with desk.node(FAST) as running:
        running.serves(2)
        yield running


def serve_second(desk: Desk, node: Node) -> Route:
    """Have model 2 serve again, with model 1 in memory behind it."""
    route = desk.records.routes.get(NAME)
    for digest in route.held:
        entry = AuditEntry("test", NAME, "hold", "test", {}, utc_now())
        desk.records.routes.lift(NAME, digest, entry=entry)
    if route.champion != 2:
        desk.record_route(champion=2, previous=1)
    until(
        lambda: (
            node.get("/health").body["status"] == "ok"
            and node.health["arm"] == "champion"
            and node.health["model_version"] == 2
            and node.health["roles"]["previous"]["state"] == "ready"
        ),
        what="model 2",
    )
    return desk.records.routes.get(NAME)


def more_answers(load: Asking, what: str = "answers") -> int:
    """Wait for twenty more answers; return how many there were before."""
    asked = len(load.answered)
    until(lambda: len(load.answered) > asked + 20, what=what)
    return asked


def roll_back(node: Node) -> dict[str, object]:
    """Take model 2 back; the answer comes, and is true, below a second."""
    stopwatch = Stopwatch()
    order = {"reason": "bad", "version": 2}
    answer = node.post(f"/v1/{NAME}/rollback", json=order, headers=node.token)
    took = stopwatch.seconds
    assert answer.status == 200, answer
    assert took < 1.0
    after = node.predict(features=ROW).body
    assert (after["model_version"], after["arm"]) == (1, "champion")
    body: dict[str, object] = answer.body
    return body


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_taken_away_fails_no_request_and_holds_up_no_rollback(
    desk: Desk, node: Node, fault: Callable[[Desk], AbstractContextManager[None]]
) -> None:
    for left in (2, 1, 0):
        answered = roll_back_under(desk, node, fault)
        # A busy machine's records may take longer than half a second, but not each time.
        if fault in WITHOUT_RECORDS or "no answer in time" not in str(answered["note"]) or not left:
            break
    assert (answered.get("scope") == "this node only") == (fault in WITHOUT_RECORDS)


def roll_back_under(
    desk: Desk, node: Node, fault: Callable[[Desk], AbstractContextManager[None]]
) -> dict[str, object]:
    """Take model 2 back while a fault lasts; return the answer."""
    before = serve_second(desk, node)
    with asking(desk.settings.node_port) as load:
        more_answers(load)
        with fault(desk):
            time.sleep(0.8)  # the node has looked at it by now
            answered = roll_back(node)
            more_answers(load, "answers meanwhile")
        until(lambda: desk.records.routes.get(NAME).champion == 1, what="the rollback on record")
        asked = more_answers(load, "answers afterwards")
    assert load.failed == []
    assert set(load.answered[:20]) == {2}
    assert set(load.answered[asked:]) == {1}
    after = desk.records.routes.get(NAME)
    assert after.generation == before.generation + 1, "it is recorded once"
    until(lambda: node.health["problems"] == [], what="the end of what is wrong")
    return answered


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_model_process_that_dies_or_hangs_is_answered_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    desk.train(1)
    desk.train(2, pins="sha256:of another node", bento_tag=write_bento(tmp_path))
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    with desk.node(FAST) as node:
        serve_second(desk, node)
        assert node.process is not None
        (child,) = psutil.Process(node.process.pid).children()
        with asking(desk.settings.node_port) as load:
            more_answers(load)
            os.kill(child.pid, number)
            until(lambda: 1 in load.answered, what="an answer of the model before")
            roll_back(node)
            more_answers(load, "answers afterwards")
        assert load.failed == []
        until(lambda: not child.is_running(), what="the end of the child")


def test_on_a_full_disk_a_rollback_is_still_served_and_nothing_is_answered_unrecorded(
    tmp_path: Path,
) -> None:
    """Neither the database nor the log can grow; the journal is small enough."""
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    full = tmp_path / "full"
    limit = f"""
import os, resource, signal, threading, time
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def watch():
    while not os.path.exists({str(full)!r}):
        time.sleep(0.02)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    while os.path.exists({str(full)!r}):
        time.sleep(0.02)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
threading.Thread(target=watch, daemon=True).start()
"""
    with desk.node(FAST + limit) as node:
        serve_second(desk, node)
        full.touch()
        until(lambda: node.predict(features=ROW).status == 503, what="a full disk")
        stopwatch = Stopwatch()
        order = {"reason": "bad", "version": 2}
        answer = node.post(f"/v1/{NAME}/rollback", json=order, headers=node.token)
        assert stopwatch.seconds < 1.0
        assert (answer.status, answer.body["scope"]) == (200, "this node only")
        assert node.health["model_version"] == 1
        full.unlink()
        until(lambda: node.predict(features=ROW).status == 200, what="an answer")
        until(lambda: desk.records.routes.get(NAME).champion == 1, what="the rollback on record")
        assert node.predict(entity=1).body["model_version"] == 1
