"""A rollback without the records: by the node's own journal, replayed once they are there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from include.clock import utc_now
from include.deployment.rollback import Late, Order, record_rollback, take_back_late
from include.errors import Conflict, Unavailable
from include.records.records import AuditEntry, Release
from include.serving import rollbacks
from include.serving.app import App
from include.serving.journal import Journal
from include.serving.reconciler import Reconciler
from include.serving.rollbacks import Rollbacks
from include.serving.workers import Workers
from tests.builders.application import Client
from tests.builders.serving import NAME, Desk

pytestmark = pytest.mark.anyio
ORDER = Order(actor="node token", reason="bad", version=2, request_id="drill-1")


STEP = {"share": 500, "bake": 60.0, "requests": 1, "entities": 1, "deadline": 600.0}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Model 2 serves, model 1 is the one to go back to."""
    monkeypatch.setattr(rollbacks, "REPLAY_SECONDS", 0.05)
    desk = Desk(tmp_path)
    for version in (1, 2, 3):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    return desk


class Here:
    """A node without a socket; `away` takes its rollbacks' records away."""

    def __init__(self, desk: Desk, app: App, reconciler: Reconciler, journal: Journal) -> None:
        self.desk, self.app, self.reconciler, self.journal = desk, app, reconciler, journal
        self.rollbacks = Rollbacks(desk.records, Workers(), reconciler, journal, "here")

    @property
    def answering(self) -> int | None:
        served = self.app.table.served.get(NAME)
        return served.answering.version if served and served.answering else None

    @contextlib.contextmanager
    def away(self) -> AsyncIterator[None]:  # type: ignore[misc]
        """Have every rollback find the records unreachable, for the time of the block."""
        real = rollbacks.take_back

        def refuse(*_: object) -> None:
            raise Unavailable("the records do not answer")

        rollbacks.take_back = refuse  # type: ignore[assignment]
        try:
            yield
        finally:
            rollbacks.take_back = real

    async def replayed(self) -> None:
        async with asyncio.timeout(60):
            while self.journal.entries:
                await self.rollbacks.turn()


@contextlib.asynccontextmanager
async def node(desk: Desk) -> AsyncIterator[Here]:
    app = Client(desk).app
    journal = Journal(desk.settings.home / "serving" / "rollbacks.json")
    reconciler = Reconciler(desk.settings, app, node="here", journal=journal)
    task = asyncio.create_task(reconciler.run())
    here = Here(desk, app, reconciler, journal)
    try:
        await until(lambda: here.answering is not None)
        await until(lambda: all_ready(reconciler))
        yield here
    finally:
        task.cancel()
        await reconciler.close()


def all_ready(reconciler: Reconciler) -> bool:
    states = [one["state"] for one in reconciler.roles(NAME).values()]  # type: ignore[index]
    return bool(states) and set(states) <= {"serving", "ready"}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def late_entries(desk: Desk) -> list[str]:
    return [
        entry.action
        for entry in desk.records.audit.entries(NAME)
        if entry.action.startswith("release.rolled_back")
    ]


async def test_it_is_served_at_once_said_to_be_of_this_node_and_recorded_later(desk: Desk) -> None:
    before = desk.records.routes.get(NAME)
    async with node(desk) as here:
        with here.away():
            settled, answered = await here.rollbacks.take_back(NAME, ORDER)
        assert settled
        assert answered["scope"] == "this node only"
        assert (answered["changed"], answered["champion"]) == (True, 1)
        assert answered["served"]["answering"] == 1
        assert here.answering == 1
        assert desk.records.routes.get(NAME) == before, "nothing is recorded yet"
        served = here.app.table.served[NAME]
        assert served.champion is not None, "it answers as what it is, and not as a fallback"
        assert any("not in the records yet" in problem for problem in served.problems)
        await here.replayed()
        after = desk.records.routes.get(NAME)
        assert (after.champion, after.generation) == (1, before.generation + 1)
        assert here.answering == 1
        assert not here.app.table.served[NAME].problems
        entry = desk.records.audit.entries(NAME)[-1]
        assert entry.details["epoch"] == 1
        assert (entry.action, entry.actor, entry.details["node"]) == (
            "release.rolled_back",
            "node token",
            "here",
        )
        again = await here.rollbacks.take_back(NAME, ORDER)
        assert not again[1]["changed"], "the request is known, whichever way it went"
        assert desk.records.routes.get(NAME) == after


async def test_records_that_do_not_answer_in_time_are_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they come to in the end is the same rollback, and no second one."""
    monkeypatch.setattr(rollbacks, "RECORDS_SECONDS", 0.1)
    real, release = rollbacks.take_back, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*arguments: object) -> object:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        return real(*arguments)  # type: ignore[arg-type]

    async with node(desk) as here:
        monkeypatch.setattr(rollbacks, "take_back", slow)
        _, answered = await here.rollbacks.take_back(NAME, replace(ORDER, request_id=""))
        assert answered["scope"] == "this node only"
        assert here.answering == 1
        release.set()
        await until(lambda: desk.records.routes.get(NAME).champion == 1)
        generation = desk.records.routes.get(NAME).generation
        await here.replayed()
        assert desk.records.routes.get(NAME).generation == generation
        assert late_entries(desk) == ["release.rolled_back"]


async def test_who_was_released_meanwhile_stays_and_the_bad_one_is_held(desk: Desk) -> None:
    async with node(desk) as here:
        with here.away():
            await here.rollbacks.take_back(NAME, ORDER)
        desk.record_route(champion=3, previous=2)
        await until(lambda: here.answering == 3)
        await here.replayed()
        route = desk.records.routes.get(NAME)
        bad = desk.records.models.get(NAME, 2)
        assert bad is not None
        assert (route.champion, route.held) == (3, [bad.model_digest])
        assert late_entries(desk) == ["release.rolled_back_late"]


async def test_a_rollback_by_another_hand_meanwhile_is_not_done_twice(desk: Desk) -> None:
    async with node(desk) as here:
        with here.away():
            await here.rollbacks.take_back(NAME, ORDER)
        record_rollback(desk.records, NAME, "anna", "bad")
        await here.replayed()
        assert desk.records.routes.get(NAME).champion == 1
        assert here.answering == 1
        assert late_entries(desk) == ["release.rolled_back", "release.rolled_back_late"]


async def test_two_nodes_that_both_noted_it_make_one_rollback(desk: Desk) -> None:
    bad = desk.records.models.get(NAME, 2)
    assert bad is not None
    late = Late(
        NAME, bad.model_digest, 2, "node token", "", "bad", "drill-1", "2026-03-10T00:00:00", "one"
    )
    assert take_back_late(desk.records, late).champion == 1
    assert take_back_late(desk.records, msgspec.structs.replace(late, node="two")).champion == 1
    assert (
        take_back_late(desk.records, msgspec.structs.replace(late, request_id="drill-2")).champion
        == 1
    )
    assert late_entries(desk) == ["release.rolled_back", "release.rolled_back_late"]
    assert desk.records.audit.verify() is None


async def test_a_challenger_is_taken_back_late_and_a_reset_use_case_gets_no_row(desk: Desk) -> None:
    challenger = desk.records.models.get(NAME, 3)
    assert challenger is not None
    desk.record_route(challenger=3)
    late = Late(NAME, challenger.model_digest, 3, "a", "", "bad", "x", "2026-03-10T00:00:00", "n")
    route = take_back_late(desk.records, late)
    assert (route.champion, route.challenger) == (2, None)
    entry = AuditEntry("use_case.reset", NAME, NAME, "test", {}, utc_now())
    desk.records.forget(NAME, entry=entry)
    take_back_late(desk.records, msgspec.structs.replace(late, request_id="y"))
    assert desk.records.serving_rows().rows == ()
    assert late_entries(desk)[-1] == "release.rolled_back_late"


def shared(here: Here) -> int | None:
    """Return the share of the release that this node gives its challenger."""
    release = here.app.table.served[NAME].release
    return None if release is None else release.share


async def test_a_challenger_gets_nothing_here_at_once_and_its_release_ends_later(
    desk: Desk,
) -> None:
    release = begin_release(desk)
    releases = desk.records.releases
    async with node(desk) as here:
        await until(lambda: all_ready(here.reconciler))
        releases.beat(NAME, release.id, 600.0)
        await until(lambda: shared(here) == 500)
        with here.away():
            settled, answered = await here.rollbacks.take_back(NAME, replace(ORDER, version=3))
        assert (settled, answered["changed"], answered["champion"]) == (True, True, 2)
        assert answered["note"].startswith("model 3 is taken back; the records cannot")
        assert (shared(here), here.answering) == (0, 2)
        assert releases.running(NAME) == release, "nothing is recorded yet"
        releases.beat(NAME, release.id, 600.0)
        await asyncio.sleep(0.3)
        assert shared(here) == 0, "whatever the judge says"
        with here.away():
            again = await here.rollbacks.take_back(NAME, replace(ORDER, version=3))
        assert not again[1]["changed"]
        await here.replayed()
        ended = releases.get(NAME, release.id)
        assert ended is not None
        assert (ended.state, ended.reason) == ("rolled_back", "bad")
        assert desk.records.routes.get(NAME).challenger is None
        assert (here.answering, shared(here)) == (2, None)


async def test_a_challenger_that_a_node_took_back_is_champion_by_the_time_of_the_replay(
    desk: Desk,
) -> None:
    """Promoted meanwhile: this node does not serve it, and the replay takes it back for all."""
    release = begin_release(desk)
    async with node(desk) as here:
        await until(lambda: all_ready(here.reconciler))
        with here.away():
            await here.rollbacks.take_back(NAME, replace(ORDER, version=3))
        release = desk.records.releases.promote(release, entry("promoted"), None)
        await until(lambda: here.app.table.served[NAME].generation >= 5)
        assert here.answering == 2
        await here.replayed()
        route = desk.records.routes.get(NAME)
        assert (route.champion, here.answering) == (2, 2)
        assert [one.state for one in desk.records.releases.of(NAME)] == ["rolled_back"]


def entry(action: str) -> AuditEntry:
    return AuditEntry(f"release.{action}", NAME, "3", "test", {}, utc_now())


def begin_release(desk: Desk) -> Release:
    """Give model 3 five percent of the requests."""
    model = desk.records.models.get(NAME, 3)
    assert model is not None
    release = desk.records.releases.request(
        NAME,
        partition=model.partition,
        model=model,
        opponent=2,
        judged_generation=desk.records.routes.get(NAME).generation,
        plan={"kind": "canary", "steps": [STEP], "watch": 60.0},
        description=None,
        entry=entry("requested"),
    )
    return desk.records.releases.begin(release, entry("begun"))


async def test_a_node_that_restarts_in_between_does_not_serve_it_again(desk: Desk) -> None:
    async with node(desk) as here:
        with here.away():
            await here.rollbacks.take_back(NAME, ORDER)
    async with node(desk) as here:
        assert here.answering == 1
        assert desk.records.routes.get(NAME).champion == 2
        await here.replayed()
        assert desk.records.routes.get(NAME).champion == 1
        assert here.answering == 1


async def test_what_it_cannot_do_it_says(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node(desk) as here:
        with here.away():
            other = await here.rollbacks.take_back(NAME, replace(ORDER, version=7))
            assert (other[1]["changed"], here.answering) == (False, 2)
            with pytest.raises(Conflict, match="generation"):
                await here.rollbacks.take_back(NAME, replace(ORDER, version=None, generation=1))
            with monkeypatch.context() as full:
                full.setattr(Journal, "_write", _no_space)
                with pytest.raises(Unavailable, match="nothing was taken back"):
                    await here.rollbacks.take_back(NAME, ORDER)
            assert here.answering == 2
            await here.rollbacks.take_back(NAME, ORDER)
            with pytest.raises(Conflict, match="no earlier champion"):
                await here.rollbacks.take_back(NAME, replace(ORDER, version=1, request_id="z"))
            with pytest.raises(Unavailable, match="not followed"):
                await here.rollbacks.take_back("nobody", ORDER)
        assert here.answering == 1


async def test_the_same_model_under_another_version_is_no_way_back(desk: Desk) -> None:
    desk.train(4, seed=2)
    desk.record_route(champion=4, previous=2)
    async with node(desk) as here:
        with here.away(), pytest.raises(Conflict, match="no earlier champion"):
            await here.rollbacks.take_back(NAME, replace(ORDER, version=4))
        assert here.answering == 4


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": 1, "entries": [{"use_c',
        b'{"format": 1, "entries": [{"use_case": "lo\xe1ns"}]}',  # one bit of the a
        b'{"format": 1, "entries": [{"note": ' + b"[" * 100_000,
    ],
    ids=["cut off", "no UTF-8", "brackets"],
)
async def test_a_damaged_journal_is_put_aside_and_said(desk: Desk, content: bytes) -> None:
    path = desk.settings.home / "serving" / "rollbacks.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    async with node(desk) as here:
        assert any("roll back again" in one for one in here.app.table.served[NAME].problems)
        assert here.answering == 2
        assert path.with_suffix(".bad").exists()
        with here.away():
            await here.rollbacks.take_back(NAME, ORDER)
        assert here.answering == 1
    assert [one.version for one in Journal(path).entries] == [2]


async def test_the_journal_keeps_what_it_was_given_and_forgets_what_is_recorded(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rollbacks.json"
    one = Late("loans", "sha256:1", 1, "a", "c", "r", "id", "2026-03-10T00:00:00", "n")
    two = Late("visits", "sha256:2", 2, "a", "c", "r", "id2", "2026-03-10T00:00:00", "n")
    journal = Journal(path)
    journal.add(one)
    journal.add(two)
    assert Journal(path).entries == (one, two)
    assert Journal(path).digests("loans") == {"sha256:1"}
    journal.remove(one)
    assert Journal(path).entries == (two,)
    assert path.stat().st_mode & 0o077 == 0
