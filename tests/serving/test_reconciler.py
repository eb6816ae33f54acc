"""The node follows the routing row: swaps under load, and what it refuses to load meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from include.models import bundle
from include.records.records import Records
from include.serving import model_loader
from include.serving.app import App
from include.serving.http import Refusal
from include.serving.reconciler import Reconciler
from include.serving.snapshot import Loaded
from tests.builders.application import Client
from tests.builders.isolated import write_bento
from tests.builders.serving import NAME, NOW, ROW, Desk, Node, bundle_files, until


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("reconciler"))
    made.publish({1: (NOW, ROW)})
    return made


@pytest.fixture(scope="module")
def node(desk: Desk) -> Iterator[Node]:
    desk.train(1)
    desk.record_route(champion=1)
    with desk.node() as running:
        running.serves(1)
        yield running


def observed(desk: Desk, generation: int) -> str:
    """Return the state that the node reports of a generation."""

    def reported() -> bool:
        return any(
            report.generation == generation and report.state != "loading"
            for report in desk.records.nodes.of(NAME)
        )

    until(reported, what=f"report of generation {generation}")
    return desk.records.nodes.of(NAME)[0].state


def test_swaps_under_load_fail_no_request(desk: Desk, node: Node) -> None:
    desk.train(2)
    stop, seen, failed = threading.Event(), list[int](), list[object]()

    def ask() -> None:
        client = Node(desk.settings)
        while not stop.is_set():
            answer = client.predict(entity=1)
            if answer.status == 200:
                seen.append(answer.body["model_version"])
            else:
                failed.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in (2, 1, 2, 1):
        assert (
            observed(desk, desk.record_route(champion=version, previous=3 - version)) == "serving"
        )
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {1, 2} == set(seen)
    assert node.get(f"/v1/{NAME}/model").body["previous"]["version"] == 2


def cut(folder: Path) -> None:
    text = (folder / "model.txt").read_bytes()
    (folder / "model.txt").write_bytes(text[: len(text) // 2])


def change_digit(folder: Path) -> None:
    text = (folder / "model.txt").read_text()
    at = text.index("leaf_value=") + len("leaf_value=")
    at += text[at:].index(".") + 1
    (folder / "model.txt").write_text(
        text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
    )


def add_pickle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")


def remove_golden(folder: Path) -> None:
    (folder / "golden.json").unlink()


def rename(folder: Path) -> None:
    (folder / "model.txt").rename(folder / "model.bak")


def link(folder: Path) -> None:
    (folder / "model.txt").rename(folder.parent / "elsewhere.txt")
    (folder / "model.txt").symlink_to(folder.parent / "elsewhere.txt")


def swap(folder: Path) -> None:
    (folder / "model.txt").write_bytes(bundle_files(99)["model.txt"])


BROKEN: list[Callable[[Path], None]] = [
    cut,
    change_digit,
    swap,
    add_pickle,
    remove_golden,
    rename,
    link,
]


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_bundle_is_refused_before_it_is_loaded(
    desk: Desk, node: Node, damage: Callable[[Path], None]
) -> None:
    version = 10 + BROKEN.index(damage)
    model = desk.train(version)
    damage(Path(model.bundle))
    assert observed(desk, desk.record_route(champion=version, previous=1)) == "failed"
    assert node.predict(entity=1).body["model_version"] == 1
    (problem, *_) = node.health["problems"]
    assert problem.startswith("champion: ")
    assert str(model.bundle) in problem
    assert observed(desk, desk.record_route(champion=1, previous=None)) == "serving"
    assert node.health["problems"] == []


@pytest.mark.parametrize("damage", [cut, swap])
def test_a_model_that_kills_its_loader_or_answers_otherwise_is_tried_in_a_child(
    desk: Desk, node: Node, damage: Callable[[Path], None]
) -> None:
    version = 20 + BROKEN.index(damage)
    model = desk.train(version)
    damage(Path(model.bundle))
    with desk.records.transaction() as session:  # its digest is right: only loading it tells
        from include.records.schema import ModelRow

        session.get_one(ModelRow, (NAME, version)).model_digest = bundle.bundle_digest(model.bundle)
    assert observed(desk, desk.record_route(challenger=version)) == "failed"
    assert "challenger" in node.health["problems"][0]
    assert node.predict(entity=1).body["model_version"] == 1
    assert observed(desk, desk.record_route(challenger=None)) == "serving"


def test_a_model_that_is_not_on_record_is_not_looked_for(desk: Desk, node: Node) -> None:
    model = desk.train(30)
    generation = desk.record_route(champion=30)
    assert observed(desk, generation) == "serving"
    with desk.records.transaction() as session:
        from include.records.schema import ModelRow, RouteRow

        row = session.get_one(RouteRow, NAME)
        row.champion, row.generation = 31, row.generation + 1
        assert session.get(ModelRow, (NAME, 31)) is None
    assert observed(desk, generation + 1) == "failed"
    assert node.predict(entity=1).body["model_version"] == 30
    with desk.records.transaction() as session:
        row = session.get_one(RouteRow, NAME)
        row.champion, row.generation = model.version, row.generation + 1


def test_what_is_in_memory_outlives_its_files(desk: Desk, node: Node) -> None:
    model = desk.train(40)
    observed(desk, desk.record_route(champion=40))
    cut(Path(model.bundle))
    assert node.post(f"/v1/{NAME}/reload", headers=node.token).body["champion"] == 40
    assert node.predict(entity=1).body["model_version"] == 40
    observed(desk, desk.record_route(champion=1))


def test_a_changed_use_case_is_taken_over(desk: Desk, node: Node) -> None:
    assert node.predict(entity=77).status == 404
    desk.write_use_case(unknown="score")
    node.post(f"/v1/{NAME}/reload", headers=node.token)
    until(lambda: node.predict(entity=77).status == 200, what="the changed use case")
    (desk.usecases / "broken.yaml").write_text("name: broken\nmore: [")
    node.post(f"/v1/{NAME}/reload", headers=node.token)
    assert node.predict(entity=77).status == 200


def test_a_node_that_starts_first_waits_for_its_records(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.records.close()
    for path in tmp_path.glob("records.db*"):
        path.unlink()
    node = Node(desk.settings)
    try:
        node.start(healthy=False)
        assert node.predict(entity=1).status == 503
        desk.records = Records.open(desk.settings.records_address)
        desk.records.migrate()
        desk.train(1)
        desk.record_route(champion=1)
        until(lambda: node.predict(features=ROW).status == 200, what="an answer")
    finally:
        node.stop()


@contextlib.asynccontextmanager
async def following(desk: Desk) -> AsyncIterator[tuple[App, Reconciler]]:
    """Follow the records in this process, without a socket, from when a champion answers."""
    app = Client(desk).app
    reconciler = Reconciler(desk.settings, app, node="here")
    task = asyncio.create_task(reconciler.run())
    try:
        await wait_until(lambda: NAME in app.table.served and champion(app) is not None)
        yield app, reconciler
    finally:
        task.cancel()
        await reconciler.close()


@pytest.mark.anyio
async def test_a_use_case_that_is_removed_takes_its_processes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loader, "LINGER_SECONDS", 0.1)
    desk = Desk(tmp_path)
    desk.train(1, pins="sha256:of another node", bento_tag=write_bento(desk.settings.home))
    desk.record_route(champion=1)
    async with following(desk) as (app, _):
        remote = champion(app).remote  # type: ignore[union-attr]
        assert remote is not None
        assert remote.alive
        (desk.usecases / f"{NAME}.yaml").unlink()
        await asyncio.to_thread(desk.record_route, weight=0)  # so that the records are read now
        await wait_until(lambda: NAME not in app.table.served)
        await wait_until(lambda: not remote.alive)


@pytest.mark.anyio
async def test_a_reload_of_a_use_case_that_is_removed_is_refused_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.train(1, pins="sha256:of another node", bento_tag=write_bento(desk.settings.home))
    desk.record_route(champion=1)
    async with following(desk) as (_, reconciler):
        reload = asyncio.create_task(reconciler.reload(NAME))
        await asyncio.sleep(0)  # it waits for the worker, which has not run again yet
        reconciler._follow([])
        async with asyncio.timeout(5):
            with pytest.raises(Refusal, match="no use case"):
                await reload


def champion(app: App) -> Loaded | None:
    return app.table.served[NAME].champion


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def test_models_with_equal_content_have_equal_digests(desk: Desk) -> None:
    one, two = desk.train(50), desk.train(51, seed=50)
    assert replace(one, version=51, bundle=two.bundle) == two
