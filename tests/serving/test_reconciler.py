"""The node follows the routing row: swaps under load, and what it refuses to load meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.clock import utc_now
from include.errors import Unavailable
from include.models import bundle
from include.models.signing import signed_columns
from include.records.records import AuditEntry, Records, ServingRows
from include.records.schema import RouteRow
from include.serving import model_states, row_source
from include.serving.app import App
from include.serving.model_states import Candidate, ModelStates
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


def observed(desk: Desk, generation: int, role: str = "champion") -> str:
    """Return the state that the node reports of a role in a generation."""

    def states() -> list[str]:
        return [
            report.state
            for report in desk.records.nodes.of(NAME)
            if (report.generation, report.role) == (generation, role) and report.state != "loading"
        ]

    until(lambda: bool(states()), what=f"report of generation {generation}")
    return states()[0]


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
        asked = len(seen)
        until(lambda asked=asked, version=version: version in seen[asked:], what="its answer")  # type: ignore[misc]
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
    state = observed(desk, desk.record_route(champion=version, previous=1))
    # What is not there may come back, what is there and wrong stays so.
    assert state == ("could_not" if damage in (remove_golden, rename) else "refused")
    answer = node.predict(entity=1).body
    assert (answer["model_version"], answer["arm"]) == (1, "fallback")
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
    state = observed(desk, desk.record_route(challenger=version), "challenger")
    assert state in ("refused", "could_not")
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
    assert observed(desk, generation + 1) == "refused"
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
    assert node.predict(entity=77).status == 404, "a file changes nothing by itself"
    generation = desk.records.routes.get(NAME).generation
    desk.apply()
    until(lambda: node.predict(entity=77).status == 200, what="the changed use case")
    assert desk.records.routes.get(NAME).generation == generation + 1


def test_a_use_case_file_that_breaks_or_goes_takes_nothing_down(desk: Desk, node: Node) -> None:
    """No file is read: not of this use case, not of another."""
    path = desk.usecases / f"{NAME}.yaml"
    text = path.read_text()
    try:
        for damage in (lambda: path.write_text("name: loans\nmore: ["), path.unlink):
            damage()
            assert node.post(f"/v1/{NAME}/reload", headers=node.token).status == 200
            assert node.predict(entity=1).status == 200
    finally:
        path.write_text(text)


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
        desk.apply()
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
    monkeypatch.setattr(model_states, "LINGER_SECONDS", 0.1)
    desk = Desk(tmp_path)
    desk.train(1, pins="sha256:of another node", bento_tag=write_bento(desk.settings.home))
    desk.record_route(champion=1)
    async with following(desk) as (app, _):
        remote = champion(app).remote  # type: ignore[union-attr]
        assert remote is not None
        assert remote.alive
        await asyncio.to_thread(forget, desk)
        await wait_until(lambda: NAME not in app.table.served)
        await wait_until(lambda: not remote.alive)


@pytest.mark.anyio
async def test_a_row_that_is_missing_without_a_reset_removes_nothing(tmp_path: Path) -> None:
    """A database that was lost and made anew says nothing of what is served."""
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    async with following(desk) as (app, reconciler):
        reconciler.follow(ServingRows(()))
        assert champion(app) is not None
        reconciler.follow(ServingRows((), frozenset({NAME})))
        assert NAME not in app.table.served
        with pytest.raises(Unavailable, match="not followed"):
            await reconciler.reload(NAME)


@pytest.mark.anyio
@pytest.mark.parametrize("description", [{}, {"name": NAME}, {"name": NAME, "entity": 3}])
async def test_an_unreadable_description_leaves_the_one_before(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    """What a row says of its use case may be of a version that this node does not know."""
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    async with following(desk) as (app, reconciler):
        known = app.table.served[NAME].use_case
        await asyncio.to_thread(desk.record_route, champion=2, description=description)
        reconciler.follow(await asyncio.to_thread(desk.records.serving_rows, (NAME,)))
        served = app.table.served[NAME]
        assert served.use_case == known
        assert served.answering is not None
        assert any("description" in problem for problem in served.problems)
        await wait_until(lambda: (found := champion(app)) is not None and found.version == 2)


@pytest.mark.anyio
async def test_a_reset_and_a_release_that_nobody_saw_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generations begin again at a reset; a row that was read late is no reset."""
    monkeypatch.setattr(row_source, "RETRY_SECONDS", 1.1)
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
        desk.record_route(champion=version)
    async with following(desk) as (app, reconciler):
        row = desk.records.serving_rows((NAME,)).rows[0]
        late = replace(row, route=replace(row.route, generation=row.route.generation - 1))
        reconciler.follow(ServingRows((late,)))
        assert app.table.served[NAME].generation == row.route.generation
        forget(desk)  # nothing is awaited, so this node sees both at once
        desk.train(3)
        desk.apply()
        generation = desk.record_route(champion=3)
        assert generation < row.route.generation
        await wait_until(
            lambda: (
                NAME in app.table.served
                and (found := champion(app)) is not None
                and (found.version, app.table.served[NAME].generation) == (3, generation)
            )
        )


@pytest.mark.anyio
async def test_a_database_that_was_restored_leaves_no_moment_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is of a lower generation, and its champion is not in memory."""
    monkeypatch.setattr(row_source, "RETRY_SECONDS", 0.5)
    desk = Desk(tmp_path)
    desk.train(1)
    older = desk.record_route(champion=1)
    desk.train(2)
    desk.train(3)
    desk.record_route(champion=2)
    desk.record_route(champion=3, previous=2)
    async with following(desk) as (app, _):
        seen: list[int | None] = []
        tried = asyncio.Event()
        load = ModelStates._load

        async def slow(self: ModelStates, candidate: Candidate) -> Loaded:
            await asyncio.sleep(0.5)
            tried.set()
            return await load(self, candidate)

        monkeypatch.setattr(ModelStates, "_load", slow)
        with desk.records.transaction() as session:
            row = session.get_one(RouteRow, NAME)
            row.champion, row.previous, row.generation = 1, None, older

        def answers() -> int | None:
            answering = app.table.served[NAME].answering
            return answering.version if answering else None

        async with asyncio.timeout(60):
            while answers() != 1:
                seen.append(answers())
                await asyncio.sleep(0.01)
        assert tried.is_set()
        assert set(seen) == {3}, "who answered until then goes on"
        assert app.table.served[NAME].generation == older


@pytest.mark.anyio
async def test_a_row_of_a_later_epoch_is_followed_at_once_whatever_its_generation(
    tmp_path: Path,
) -> None:
    """A restore goes back to an earlier generation; that is no late answer of the database."""
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    older = desk.records.serving_rows((NAME,)).rows[0]
    for _ in range(3):
        desk.record_route(step=1)
    newer = desk.records.serving_rows((NAME,)).rows[0]
    async with following(desk) as (app, reconciler):
        assert app.table.served[NAME].generation == newer.route.generation

        def followed() -> tuple[int, int]:
            served = app.table.served[NAME]
            return served.epoch, served.generation

        reconciler.follow(ServingRows((older,), epoch=2))
        assert followed() == (2, older.route.generation)
        # What another look read before the restore is late, though its generation is higher.
        reconciler.follow(ServingRows((newer,), epoch=1))
        assert followed() == (2, older.route.generation)
        assert reconciler.epoch_of(NAME) == 2


def forget(desk: Desk) -> None:
    """Remove the use case from the records, as a reset does."""
    entry = AuditEntry("use_case.reset", NAME, NAME, "test", {}, utc_now())
    desk.records.forget(NAME, entry=entry)


def champion(app: App) -> Loaded | None:
    return app.table.served[NAME].champion


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def test_models_with_equal_content_have_equal_digests(desk: Desk) -> None:
    one, two = desk.train(50), desk.train(51, seed=50)
    assert replace(one, version=51, bundle=two.bundle, **signed_columns(two)) == two


def test_rows_are_checked_by_the_model_that_answers_not_by_the_use_case_of_today(
    tmp_path: Path,
) -> None:
    """A feature that is renamed, or of another type now, breaks no request for what serves."""
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    path = desk.usecases / f"{NAME}.yaml"
    text = path.read_text().replace("region: string,\n      new", "area: int64,\n      new")
    text = text.replace("region: {type: string}", "area: {type: int64}")
    with desk.node() as node:
        node.serves(1)
        before = node.predict(features=ROW).body["score"]
        path.write_text(text)
        generation = desk.records.routes.get(NAME).generation
        desk.apply()
        until(lambda: node.health["generation"] > generation, what="the changed use case")
        answer = node.predict(features=ROW)
        assert (answer.status, answer.body.get("score")) == (200, before)
        # What the next model will read may come already; the champion passes it over.
        assert node.predict(features={**ROW, "area": 7}).status == 200
        wrong = node.predict(features={**ROW, "nobody": 7})
        assert (wrong.status, wrong.body["error"]["field"]) == (422, "features.nobody")
        missing = node.predict(features={name: ROW[name] for name in ROW if name != "region"})
        assert (missing.status, missing.body["error"]["field"]) == (422, "features.region")
