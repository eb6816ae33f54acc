"""What is latched stays so: on this node, for this release, over restarts, and is told later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.errors import Unavailable
from include.predictions.window_counts import CHALLENGER, CHAMPION
from include.serving import guard as guard_module
from include.serving.guard import Guard, Latch, LatchFile
from include.serving.snapshot import Served, ServedRelease
from include.serving.tally import Recent
from tests.builders.application import Client
from tests.builders.serving import NAME

RELEASE = ServedRelease("a" * 12, 1, "canary", 500, bytes(16))
BAD = Recent(20, 20, 0, 0, set(range(20)), set(range(20)), set())
GOOD = Recent(400, 0, 0, 0, set(range(100, 500)), set(), set())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "LOOK_SECONDS", 0.0)


@pytest.fixture
def served(client: Client) -> Served:
    """A snapshot with a release under way."""
    return Served(client.use_case, release=RELEASE)


@pytest.fixture
def file(tmp_path: Path) -> LatchFile:
    return LatchFile(tmp_path / "serving" / "guards.json")


async def run(work: Callable[..., Any], *arguments: object) -> None:
    await asyncio.to_thread(work, *arguments)


class Clock:
    """Seconds that pass where a test lets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def guard_of(file: LatchFile, **options: Any) -> Guard:
    """Return a guard with a clock of its own."""
    return Guard(file, clock=Clock(), **options)


def sicken(guard: Guard, served: Served) -> None:
    """Let all answers of the challenger fail for longer than a restart takes."""
    for _ in range(7):
        guard._clock.now += 5.0  # type: ignore[attr-defined]
        guard.observe(served, CHAMPION, GOOD)
        guard.observe(served, CHALLENGER, BAD)


def look(guard: Guard, served: Served) -> None:
    """Look at what is served now."""
    guard.look({NAME: served})


def test_a_clear_fail_is_latched_once_and_said_at_once(file: LatchFile, served: Served) -> None:
    told: list[str] = []
    guard = guard_of(file, latched=told.append)
    look(guard, served)
    assert guard.why(NAME, RELEASE.id) == ""
    sicken(guard, served)
    look(guard, served)
    assert guard.why(NAME, RELEASE.id) == "140 of 140 answers failed within 30 s"
    assert guard.why(NAME, "b" * 12) == ""
    sicken(guard, served)
    look(guard, served)
    assert told == [NAME]


def test_what_comes_of_another_step_or_of_no_active_release_is_not_mixed(
    file: LatchFile, served: Served
) -> None:
    guard = guard_of(file)
    guard.observe(served, CHALLENGER, BAD)
    guard.observe(replace(served, release=replace(RELEASE, step=2)), CHAMPION, GOOD)
    look(guard, served)
    assert guard.why(NAME, RELEASE.id) == ""
    for release in (None, replace(RELEASE, is_active=False)):
        sicken(guard, replace(served, release=release))
    look(guard, served)
    assert guard.why(NAME, RELEASE.id) == ""


@pytest.mark.parametrize(
    "present",
    [
        None,
        replace(RELEASE, step=2),
        replace(RELEASE, id="b" * 12),
        replace(RELEASE, state="watched", mode=None, step=3, is_active=False),
        replace(RELEASE, is_active=False),
    ],
)
def test_what_was_counted_in_a_step_latches_nothing_once_the_step_is_over(
    file: LatchFile, served: Served, present: ServedRelease | None
) -> None:
    """The model may be champion by then, and a latch would roll it back."""
    guard = guard_of(file)
    sicken(guard, served)
    look(guard, replace(served, release=present))
    assert guard.why(NAME, RELEASE.id) == ""
    still = present is not None and (present.id, present.step) == (RELEASE.id, RELEASE.step)
    look(guard, served)
    assert bool(guard.why(NAME, RELEASE.id)) is still, "of the same step it is not forgotten"


def test_a_burn_is_told_by_the_availability_of_the_release(file: LatchFile, served: Served) -> None:
    some = Recent(1000, 30, 0, 0, set(range(100)), set(range(30)), set())
    for promised, why in ((0.9, ""), (RELEASE.availability, "a burn rate of 30.0")):
        guard = guard_of(file)
        at_work = replace(served, release=replace(RELEASE, availability=promised))
        for _ in range(7):
            guard._clock.now += 5.0  # type: ignore[attr-defined]
            guard.observe(at_work, CHAMPION, GOOD)
            guard.observe(at_work, CHALLENGER, some)
        look(guard, at_work)
        assert guard.why(NAME, RELEASE.id).endswith(why)
        assert bool(guard.why(NAME, RELEASE.id)) is bool(why)


@pytest.mark.anyio
async def test_a_latch_survives_a_restart_and_is_told_once_the_records_are_there(
    file: LatchFile, served: Served
) -> None:
    guard = guard_of(file)
    sicken(guard, served)
    look(guard, served)

    def away(latch: Latch) -> None:
        raise Unavailable("the records are away")

    with pytest.raises(Unavailable):
        await guard.keep(run, away)
    again = guard_of(file)  # the process was killed
    assert again.why(NAME, RELEASE.id) == guard.why(NAME, RELEASE.id) != ""
    told: list[Latch] = []
    await again.keep(run, told.append)
    assert [(one.use_case, one.release) for one in told] == [(NAME, RELEASE.id)]
    await again.keep(run, told.append)
    await guard_of(file).keep(run, told.append)
    assert len(told) == 1


@pytest.mark.anyio
async def test_records_that_were_restored_are_told_again(file: LatchFile, served: Served) -> None:
    """Of before the latch: without it the release would go on, on all other nodes too."""
    guard, told = guard_of(file), list[Latch]()
    sicken(guard, served)
    for epoch in (1, 1, 2, 2):
        look(guard, replace(served, epoch=epoch))
        await guard.keep(run, told.append)
    assert len(told) == 2
    restarted = guard_of(file)
    look(restarted, replace(served, epoch=2))
    await restarted.keep(run, told.append)
    assert len(told) == 2
    look(restarted, Served(served.use_case, epoch=3))  # it is over there
    await restarted.keep(run, told.append)
    assert len(told) == 2


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": 1, "latc',
        b'{"format": 1, "latches": [{"use_case": "lo\xe1ns"}]}',
        b'{"format": 1, "latches": [{"note": ' + b"[" * 100_000,
    ],
    ids=["cut off", "no UTF-8", "brackets"],
)
def test_a_damaged_file_is_put_aside_and_written_anew(
    file: LatchFile, served: Served, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(content)
    assert file.read() is None
    assert "is damaged" in caplog.text
    assert [path.name for path in file.path.parent.iterdir()] == ["guards.damaged"]
    latch = Latch(NAME, RELEASE.id, "why", "2026-03-10")
    file.write([latch])
    assert file.read() == [latch]
    assert file.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("is_damaged", [True, False])
def test_of_a_file_that_cannot_be_read_the_release_of_now_gets_nothing(
    file: LatchFile, served: Served, is_damaged: bool
) -> None:
    if is_damaged:
        file.path.parent.mkdir(parents=True)
        file.path.write_bytes(b"{")
    else:
        file.path.mkdir(parents=True)  # it cannot be read, by root either, and is not gone
    guard = guard_of(file)
    assert guard.why(NAME, RELEASE.id) == "the file of its latches could not be read"
    assert guard.why(NAME, RELEASE.id) != ""
    assert guard.why(NAME, "b" * 12) == "", "the next release can not have stood in it"
    assert file.path.exists() is not is_damaged
    assert is_damaged is (guard_of(file).why(NAME, RELEASE.id) == "")


def test_latches_of_old_releases_do_not_pile_up(
    file: LatchFile, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "MAX_LATCHES", 3)
    guard = guard_of(file)
    names = [f"{number:012x}" for number in range(5)]
    for name in names:
        one = replace(served, release=replace(RELEASE, id=name))
        sicken(guard, one)
        look(guard, one)
    assert [name for name in names if guard.why(NAME, name)] == names[-3:]
