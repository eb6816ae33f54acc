"""What is counted reaches the records: whole minutes, also those of a start that was killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.errors import Unavailable
from include.predictions.line_writer import LineWriter, Source
from include.predictions.log import OPEN, PredictionLog, folder
from include.predictions.window_counts import CHALLENGER, CHAMPION, REQUESTS, Counts, total
from include.records.records import Records, Window
from include.serving import window_rows
from include.serving.answer_log import Asked
from include.serving.evidence import MICROS_A_MINUTE, Evidence, WindowKey
from include.serving.evidence import Window as Counted
from include.serving.snapshot import Served, ServedRelease
from include.serving.window_file import WindowFile
from include.serving.window_rows import WindowRows, put_together
from tests.builders.application import Client
from tests.builders.serving import NAME

pytestmark = pytest.mark.anyio
RELEASE = ServedRelease("a" * 12, 1, "canary", 500, bytes(range(16)))
NODE = "here:1"


class Start:
    """One start of a node that counts; `away` says that its records cannot be reached."""

    def __init__(self, client: Client, home: Path, records: Records, boot: str) -> None:
        self.records, self.away, self.boot = records, False, boot
        self.evidence = Evidence(lambda: str)
        self.app, self.number = client.app, 0
        self.served = Served(client.use_case, release=RELEASE)
        self.app.table.served[NAME] = self.served
        self.log = PredictionLog(home, NAME)
        self.file = WindowFile(home / "serving" / "windows-1.json", home)
        self.rows = WindowRows(
            self.evidence,
            self.app.table,
            self,  # type: ignore[arg-type]
            self.file,
            node=NODE,
            boot=boot,
            prefix=f"{boot}-",
            put=self.put,
            run=self.run,
        )

    def position(self, use_case: str) -> tuple[str, int]:
        assert use_case == NAME
        return self.log.position

    async def run(self, work: Callable[..., Any], *arguments: object) -> None:
        await asyncio.to_thread(work, *arguments)

    def put(self, windows: list[Window]) -> None:
        if self.away:
            raise Unavailable("the records are away")
        self.records.releases.put_windows(windows)

    def ask(self, count: int = 1, *, minutes_ago: int = 0) -> None:
        """Answer requests by the champion, with their lines."""
        writer = LineWriter(self.log)
        source = Source(
            version=1,
            digest="d",
            feature_set="f",
            arm=CHAMPION,
            assigned=CHAMPION,
            generation=1,
            threshold=0.5,
            release=RELEASE.id,
            step=RELEASE.step,
        )
        for _ in range(count):
            self.number += 1
            asked = Asked(f"{self.boot}-{self.number:x}", None)
            asked.at -= minutes_ago * MICROS_A_MINUTE
            line = writer.line(
                writer.template(source),
                request_id=asked.own_id,
                caller_id=None,
                at=asked.at,
                entity=self.number % 9,
                features=None,
                latency_us=1,
                score=0.25,
                model_us=30,
            )
            writer.write(line)
            self.evidence.note(
                self.served,
                asked,
                assigned=CHAMPION,
                answering=CHAMPION,
                entity=self.number % 9,
                score=0.25,
                model_us=30,
                above=False,
            )

    def kill(self) -> None:
        """End it as a kill does: its segment stays open, without its lock."""
        import os

        os.close(self.log._descriptor)

    def windows(self) -> list[Window]:
        return self.records.releases.windows(NAME, RELEASE.id)

    def requests(self, boot: str | None = None) -> int:
        return total(
            Counts.read(one.counts) for one in self.windows() if boot in (None, one.boot)
        ).column(REQUESTS)


@pytest.fixture
def start(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], Start]:
    monkeypatch.setattr(window_rows, "WRITE_SECONDS", 0.0)
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()
    return lambda boot: Start(client, tmp_path, records, boot)


async def test_minutes_are_written_over_as_they_grow(start: Callable[[str], Start]) -> None:
    node = start("one")
    node.ask(3)
    await node.rows.turn()
    node.ask(2)
    await node.rows.turn()
    assert node.requests() == 5
    assert all(not one.closed and one.boot == "one" and one.node == NODE for one in node.windows())


async def test_a_step_has_a_row_before_anybody_asks(start: Callable[[str], Start]) -> None:
    node = start("one")
    await node.rows.turn()
    (window,) = node.windows()
    assert (window.step, window.arm, window.answering) == (1, CHAMPION, CHAMPION)
    assert Counts.read(window.counts) == Counts()


async def test_a_step_that_begins_is_written_at_once(
    start: Callable[[str], Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is killed in its first seconds is missed, and what it answered is counted."""
    monkeypatch.setattr(window_rows, "WRITE_SECONDS", 3600.0)
    node = start("one")
    del node.app.table.served[NAME]
    node.app.install(Served(node.served.use_case))
    waiting = asyncio.create_task(node.rows.turn())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    node.app.install(node.served)
    async with asyncio.timeout(60):
        await waiting
        assert len(node.windows()) == 1
        node.app.install(replace(node.served, release=replace(RELEASE, step=2)))
        await node.rows.turn()
    assert {one.step for one in node.windows()} == {1, 2}
    waiting = asyncio.create_task(node.rows.turn())
    node.app.install(replace(node.served, release=replace(RELEASE, step=2)))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "no more often for what goes on"
    waiting.cancel()
    node.ask(3)
    node.kill()
    monkeypatch.setattr(window_rows, "WRITE_SECONDS", 0.0)
    again = start("two")
    await again.rows.turn()
    closed = [one for one in again.windows() if one.closed and one.boot == "one"]
    assert (2, 1) in {(one.step, Counts.read(one.counts).unclean) for one in closed}
    assert again.requests("one") == 3


async def test_an_orderly_end_is_said_once_in_a_row_of_the_last_minute(
    start: Callable[[str], Start],
) -> None:
    node = start("one")
    node.ask(3, minutes_ago=1)
    await node.rows.turn()
    node.ask(1)
    await node.rows.close()
    closed = [one for one in node.windows() if one.closed]
    assert len(closed) == 1
    assert closed[0].minute == max(one.minute for one in node.windows())
    assert node.requests() == 4
    assert not node.file.path.exists()
    assert Counts.read(closed[0].counts).unclean == 0


async def test_without_a_release_nothing_is_written(start: Callable[[str], Start]) -> None:
    node = start("one")
    node.app.table.served[NAME] = Served(node.served.use_case)
    await node.rows.turn()
    await node.rows.close()
    assert node.windows() == []
    assert not node.file.path.exists()


async def test_while_the_records_are_away_all_is_kept_and_written_later(
    start: Callable[[str], Start],
) -> None:
    node = start("one")
    node.away = True
    for minutes in (5, 4, 0):
        node.ask(2, minutes_ago=minutes)
        with pytest.raises(Unavailable):
            await node.rows.turn()
    node.away = False
    await node.rows.turn()
    assert node.requests() == 6


async def test_a_killed_start_is_counted_by_the_next_one(start: Callable[[str], Start]) -> None:
    node = start("one")
    node.ask(3)
    await node.rows.turn()
    node.ask(4)  # told nobody
    node.kill()
    again = start("two")
    again.ask(2)
    await again.rows.turn()
    assert (again.requests("one"), again.requests("two")) == (7, 2)
    closed = [one for one in again.windows() if one.closed]
    assert [one.boot for one in closed] == ["one"]
    assert Counts.read(closed[0].counts).unclean == 1
    await again.rows.turn()
    assert again.requests() == 9
    assert not again.file.links.exists()


async def test_a_start_that_was_killed_before_its_first_row_is_counted_too(
    start: Callable[[str], Start],
) -> None:
    node = start("one")
    node.away = True
    node.ask(3)
    with pytest.raises(Unavailable):
        await node.rows.turn()
    node.ask(1)
    node.kill()
    second = start("two")  # killed as well, before the records were back
    second.away = True
    second.ask(5)
    with pytest.raises(Unavailable):
        await second.rows.turn()
    second.kill()
    third = start("three")
    await third.rows.turn()
    assert (third.requests("one"), third.requests("two")) == (4, 5)
    assert {one.boot for one in third.windows() if one.closed} == {"one", "two"}


async def test_what_an_orderly_end_could_not_write_the_next_start_writes(
    start: Callable[[str], Start],
) -> None:
    node = start("one")
    node.ask(3)
    node.away = True
    await node.rows.close()
    assert node.windows() == []
    again = start("two")
    await again.rows.turn()
    assert again.requests("one") == 3
    closed = [one for one in again.windows() if one.closed]
    assert [(one.boot, Counts.read(one.counts).unclean) for one in closed] == [("one", 0)]


async def test_minutes_that_the_records_have_are_forgotten_but_the_last(
    start: Callable[[str], Start],
) -> None:
    node = start("one")
    for minutes in (9, 8, 7):
        node.ask(1, minutes_ago=minutes)
    await node.rows.turn()
    kept = {key.minute for key in node.evidence.windows}
    now = time.time_ns() // 1000 // MICROS_A_MINUTE
    assert len(kept) == 1
    assert kept <= {now - 7, now - 8}
    node.app.table.served[NAME] = Served(node.served.use_case)  # the release has ended
    await node.rows.turn()
    assert not node.evidence.windows
    assert node.file.path.exists()
    await node.rows.close()
    assert not node.file.path.exists()


async def test_a_clock_that_is_set_back_writes_over_nothing(start: Callable[[str], Start]) -> None:
    node = start("one")
    node.ask(4, minutes_ago=30)
    await node.rows.turn()
    node.ask(1)
    await node.rows.turn()  # the minute of the four is on record, and forgotten
    node.ask(2, minutes_ago=30)
    await node.rows.turn()
    assert node.requests() == 7
    node.ask(1, minutes_ago=30)
    node.kill()
    again = start("two")
    await again.rows.turn()
    assert again.requests() == 8


async def test_a_file_that_cannot_be_written_or_read_holds_nothing_up(
    start: Callable[[str], Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start("one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(node.file, "write", full)
        node.ask(2)
        await node.rows.turn()
    assert node.requests() == 2
    node.file.path.parent.mkdir(exist_ok=True)
    damaged = (
        b"{",
        b'{"format": 1, "boots": [{"boot": "o\xeee"}]}',
        b'{"format": 1, "boots": [{"note": ' + b"[" * 100_000,
    )
    for content in damaged:
        node.file.path.write_bytes(content)
        again = start("two")
        await again.rows.turn()
        assert again.requests() == 2


async def test_a_start_that_cannot_be_counted_again_holds_up_no_other(
    start: Callable[[str], Start], caplog: pytest.LogCaptureFixture
) -> None:
    node = start("one")
    node.ask(3)
    await node.rows.turn()
    node.ask(1)
    segment = folder(node.file.links.parents[1], NAME) / f"{node.log.position[0]}{OPEN}"
    lines = segment.read_bytes()
    # A number still, but none that a sum of thousandths can hold.
    segment.write_bytes(lines[:-200] + lines[-200:].replace(b"0.25", b"9e307"))
    assert segment.read_bytes() != lines
    node.kill()
    again = start("two")
    again.ask(2)
    await again.rows.turn()
    assert (again.requests("one"), again.requests("two")) == (3, 2)
    assert "stays unknown" in caplog.text
    assert not any(one.closed for one in again.windows()), "its end is unknown, and a hold"
    assert not again.file.links.exists()


def test_minutes_are_put_together_where_the_records_know_none_of_them() -> None:
    windows: dict[WindowKey, Counted] = {}
    for minute in range(5):
        for arm in (CHAMPION, CHALLENGER):
            window = windows[WindowKey(NAME, RELEASE.id, 1, arm, arm, minute)] = Counted()
            window.tally.dropped = 10**minute
            window.is_written = arm == CHAMPION and minute == 1
    put_together(windows)
    left = {(key.arm, key.minute): one.tally.dropped for key, one in windows.items()}
    assert left == {
        (CHAMPION, 0): 1,
        (CHAMPION, 1): 10,
        (CHAMPION, 3): 1100,
        (CHAMPION, 4): 10_000,
        (CHALLENGER, 1): 11,
        (CHALLENGER, 3): 1100,
        (CHALLENGER, 4): 10_000,
    }


async def test_windows_in_memory_are_bounded(
    start: Callable[[str], Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_rows, "MAX_WINDOWS", 10)
    node = start("one")
    node.away = True
    for minutes in range(40, 0, -1):
        node.ask(1, minutes_ago=minutes)
        with pytest.raises(Unavailable):
            await node.rows.turn()
    assert len(node.evidence.windows) <= 11
    node.away = False
    await node.rows.turn()
    assert node.requests() == 40
