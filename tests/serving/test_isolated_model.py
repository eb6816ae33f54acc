"""A model in a process of its own: what it answers, and what a process that does not is worth."""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from include.errors import ArtefactError, Unavailable
from include.serving import child_limits, isolated_model
from include.serving.http import Refusal
from include.serving.isolated_model import IsolatedModel
from tests.builders.isolated import HELLO, digest_of, write_bento

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a process the time that a busy machine takes; tests of deadlines set their own."""
    monkeypatch.setattr(isolated_model, "DEADLINE", 30.0)
    monkeypatch.setattr(isolated_model, "QUEUE_SECONDS", 30.0)


@contextlib.asynccontextmanager
async def started(
    home: Path, first: str = HELLO, seconds: float = 60
) -> AsyncIterator[IsolatedModel]:
    """Start the process of a Bento, and end it."""
    tag = write_bento(home, first=first)
    model = await IsolatedModel.start(
        home, tag, "/bundle", "sha256:1", seconds=seconds, code_digest=digest_of(home, tag)
    )
    try:
        yield model
    finally:
        model.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def failure(answer: Awaitable[float]) -> str:
    """Return why a model does not answer."""
    with pytest.raises(Unavailable) as caught:
        await answer
    return str(caught.value)


async def test_it_answers_rows_in_any_order_of_time(tmp_path: Path) -> None:
    async with started(tmp_path) as model:
        assert model.features == ["income", "jobs", "region", "new"]
        rows = [{"score": number / 10} for number in range(10)]
        answers = await asyncio.gather(*map(model.ask, rows))
        assert [one.value for one in answers] == [row["score"] for row in rows]


async def test_a_wrong_row_is_the_callers_fault_not_the_models(tmp_path: Path) -> None:
    async with started(tmp_path) as model:
        for _ in range(isolated_model.FAILURES + 1):
            with pytest.raises(Refusal) as caught:
                await model.ask({"do": "refuse"})
            assert (caught.value.status, caught.value.field) == (422, "features.income")
        assert (await model.ask({})).value == 0.25


async def test_an_answer_of_nan_is_an_answer_and_ends_no_process(tmp_path: Path) -> None:
    async with started(tmp_path) as model:
        assert math.isnan((await model.ask({"do": "nan"})).value)
        assert (await model.ask({})).value == 0.25


async def test_an_answer_without_a_score_is_none(tmp_path: Path) -> None:
    async with started(tmp_path) as model:
        assert "no score" in await failure(model.ask({"do": "forget"}))


async def test_after_late_answers_in_a_row_it_is_asked_no_more_until_a_probe_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated_model, "DEADLINE", 0.3)
    monkeypatch.setattr(isolated_model, "PROBE_SECONDS", 0.05)
    async with started(tmp_path) as model:
        for _ in range(isolated_model.FAILURES):
            assert "no answer in 300 ms" in await failure(model.ask({"do": "hang"}))
        with pytest.raises(Unavailable, match="does not answer at present"):
            model.ask({}).send(None)  # it is told in this very turn, without a wait
        model._last = b"{}"  # the probe repeats the last row; this one is answered in time
        await until(lambda: model._probe is None)
        monkeypatch.setattr(isolated_model, "DEADLINE", 30.0)
        assert (await model.ask({})).value == 0.25


async def test_as_many_as_come_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated_model, "MAX_WAITING", 2)
    async with started(tmp_path) as model:
        rows = [{"seconds": 0.01, "score": number / 100} for number in range(40)]
        answers = await asyncio.gather(*(model.ask(row) for row in rows))
        assert [one.value for one in answers] == [row["score"] for row in rows]
        assert (model._in_hand, len(model._queue)) == (0, 0)


async def test_the_queue_is_bounded_in_length_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated_model, "MAX_WAITING", 1)
    monkeypatch.setattr(isolated_model, "MAX_QUEUED", 1)
    monkeypatch.setattr(isolated_model, "QUEUE_SECONDS", 0.05)
    async with started(tmp_path) as model:
        may_answer = tmp_path / "may-answer"
        first = asyncio.create_task(model.ask({"after": str(may_answer)}))
        await asyncio.sleep(0)
        second = asyncio.create_task(model.ask({}))
        await asyncio.sleep(0)
        assert "at present" in await failure(model.ask({}))
        assert "no time for it" in await failure(second)
        may_answer.touch()
        # A Bento of before says nothing of its own time.
        assert await first == (0.25, None)
        assert (await model.ask({})).value == 0.25
        assert (model._in_hand, len(model._queue)) == (0, 0)


@pytest.mark.parametrize("what", ["die", "babble", "flood"])
async def test_a_process_that_dies_or_talks_nonsense_is_given_up_and_says_so(
    tmp_path: Path, what: str
) -> None:
    async with started(tmp_path) as model:
        ended = asyncio.Event()
        model.on_end = ended.set
        assert "has ended" in await failure(model.ask({"do": what}))
        async with asyncio.timeout(60):
            await ended.wait()
        assert not model.alive


@pytest.mark.parametrize(
    ("first", "kind", "message"),
    [
        (
            'say({"error": "ArtefactError: digest"})',
            ArtefactError,
            "refuses its model: ArtefactError: digest",
        ),
        ('say({"golden": 0})', ArtefactError, "no golden rows"),
        # No refusal for good: a machine short of memory, or of time, ends a whole one as well.
        ("sys.exit(1)", Unavailable, "died or hung"),
        ("time.sleep(60)", Unavailable, "died or hung"),
        ("while True: say(b'x' * 65536)", Unavailable, "died or hung"),
    ],
)
async def test_a_process_that_does_not_answer_its_golden_rows_is_ended(
    tmp_path: Path, first: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        async with started(tmp_path, first, seconds=3 if "sleep" in first else 60):
            pass
    await until(lambda: children() == [])


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux alone sets it from outside")
async def test_what_its_process_may_take_is_bounded(tmp_path: Path) -> None:
    async with started(tmp_path) as model:
        assert model._process is not None
        for limit, most in {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 256}.items():
            assert resource.prlimit(model._process.pid, limit) == (most, most)
        memory, _ = resource.prlimit(model._process.pid, resource.RLIMIT_AS)
        assert 0 < memory <= child_limits.MOST_BYTES


async def test_a_start_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    tag = write_bento(tmp_path, first=f"open({str(runs)!r}, 'w'); time.sleep(60)")
    digest = digest_of(tmp_path, tag)
    start = IsolatedModel.start(
        tmp_path, tag, "/bundle", "sha256:1", seconds=60, code_digest=digest
    )
    task = asyncio.create_task(start)
    await until(runs.exists)  # it is its first word that is waited for
    task.cancel()
    await until(lambda: children() == [])


async def test_the_copies_of_nodes_that_are_dead_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "serving" / "code-999999999-x"
    left.mkdir(parents=True)
    async with started(tmp_path) as model:
        assert not left.exists()
        (copy,) = (tmp_path / "serving").glob("code-*")
        assert (await model.ask({})).value == 0.25
    assert not copy.exists()


async def test_a_bento_that_is_not_there_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="run package_model"):
        await IsolatedModel.start(
            tmp_path, "loans:none", "/bundle", "sha256:1", seconds=1, code_digest="sha256:2"
        )


def children() -> list[int]:
    """Return the processes of Bentos that this one has started."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            living = process.status() != psutil.STATUS_ZOMBIE
            if living and any(word.endswith("/lane.py") for word in process.cmdline()):
                found.append(process.pid)
    return found
