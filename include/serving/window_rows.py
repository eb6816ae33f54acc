"""Write what a node has counted of releases into the records, every few seconds and at its end.

Each write is of whole minutes, over what was written of them before, so it may be repeated. While
the records are away windows are kept, and minutes are put together where they become too many.
Before the records, a file gets them (`window_file`), with the place in the log up to which they
count; what a killed start left there is completed from its log, and written first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from include.predictions.window_counts import Counts
from include.records.records import Window
from include.serving.answer_log import AnswerLog
from include.serving.evidence import MICROS_A_MINUTE, Evidence, WindowKey
from include.serving.evidence import Window as Counted
from include.serving.recount import closing_key, recounted, window_of
from include.serving.serving_table import ServingTable
from include.serving.window_file import KeptBoot, KeptWindow, Position, SlowLimit, WindowFile

log = logging.getLogger(__name__)

WRITE_SECONDS = 5.0
KEPT_MINUTES = 2  # in which a window may still change
MAX_WINDOWS = 2_000  # in memory; each has some 10 kB
AT_ONCE = 200  # rows in a transaction
END_SECONDS = 2.0
Run = Callable[..., Awaitable[None]]  # a function, in a thread


class WindowRows:
    """The writer of one start of a node; belongs to the event loop."""

    def __init__(
        self,
        evidence: Evidence,
        table: ServingTable,
        answer_log: AnswerLog,
        file: WindowFile,
        *,
        node: str,
        boot: str,
        prefix: str,
        put: Callable[[list[Window]], None],
        run: Run,
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        """Build it, and hold on to what the last starts have left.

        `prefix` is what this start's ids of requests begin with. `put` writes rows to the records.
        `settle` puts on record what waits for its line.
        """
        self._evidence, self._table, self._log, self._file = evidence, table, answer_log, file
        self._node, self._put, self._run, self._settle = node, put, run, settle
        self._own = KeptBoot(boot, prefix)
        self._begun = set[tuple[str, str, int]]()  # steps that have a row
        self._left = file.read()
        file.hold(self._left)
        self._has_file = bool(self._left)

    async def turn(self) -> None:
        """Wait some seconds, or for a step to begin here, then write what has changed.

        Raises:
            EvergreenError: the records cannot be reached; all is kept, and written later.
        """
        await self._wait()
        await self._evidence.fold_all()
        self._begin_steps()
        dirty = self._snapshot()
        try:
            await self._keep()
        except OSError as error:  # what it holds goes on to fit together
            log.warning("the file of what is counted cannot be written: %s", error)
        await self._write_left()
        await self._write(dirty)
        self._forget()

    async def close(self) -> None:
        """Write all that is left, and that this start has ended in order."""
        self._evidence.fold()
        self._snapshot()
        self._own.has_ended = True
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._keep()  # the next start writes them if this one cannot
                if self._own.windows:
                    windows = recounted(self._file, self._own, self._node)
                    await self._run(self._put_all, windows)
                    self._own.windows = []
                    await self._keep()
        except Exception as error:  # noqa: BLE001 - a node that ends is to end
            log.warning("the last counts of this start are left for the next one: %s", error)

    async def _wait(self) -> None:
        """Wait some seconds, none more once a step has begun of which nothing is written.

        Else a start that is killed in these seconds leaves nothing by which it could be missed.
        """
        changed = self._table.changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_SECONDS):
                while self._steps() <= self._begun:
                    await changed.wait()
                    changed.clear()

    def _steps(self) -> set[tuple[str, str, int]]:
        """Return the steps that this start takes part in now."""
        return {
            (name, release.id, release.step)
            for name, served in self._table.served.items()
            if (release := served.release) is not None and release.state != "trying"
        }

    def _begin_steps(self) -> None:
        """Let each step that this start takes part in have a row from its beginning."""
        minute = max(self._evidence.floor, time.time_ns() // 1000 // MICROS_A_MINUTE)
        known = {key[:3] for key in self._evidence.windows}
        self._begun = self._steps()
        for name, release_id, step in self._begun:
            release = self._table.served[name].release
            if release is not None and release_id not in self._own.releases:
                self._own.releases[release_id] = SlowLimit(release.key, release.slow_us)
            if (name, release_id, step) not in known:
                key = WindowKey(name, release_id, step, "", "", minute)
                self._evidence.windows[closing_key(key)] = Counted()

    def _snapshot(self) -> list[WindowKey]:
        """Take over what is counted now, and how much of the logs that is; return what is news."""
        self._evidence.fold()
        self._settle()
        self._own.positions = {
            name: Position(*self._log.position(name))
            for name, served in self._table.served.items()
            if served.release is not None
        }
        windows, self._own.floor = self._evidence.windows, self._evidence.floor
        if len(windows) > MAX_WINDOWS:
            put_together(windows)
        self._own.windows = [
            KeptWindow(*key, window.tally.counts()) for key, window in windows.items()
        ]
        return [key for key, window in windows.items() if window.is_dirty]

    async def _keep(self) -> None:
        boots = [*self._left, *([self._own] if self._own.windows else [])]
        if boots or self._has_file:
            await self._run(self._file.write, boots)
            self._has_file = bool(boots)

    async def _write_left(self) -> None:
        """Write what earlier starts have left, the oldest first."""
        while self._left:
            boot = self._left[0]
            await self._run(self._write_boot, boot)
            self._left.pop(0)
            await self._keep()
            self._file.let_go(boot)

    def _write_boot(self, boot: KeptBoot) -> None:
        try:
            windows = recounted(self._file, boot, self._node)
        except Exception as error:  # noqa: BLE001 - else it would hold up all that is counted since
            log.error("what the start %s has answered stays unknown: %r", boot.boot, error)
        else:
            self._put_all(windows)

    async def _write(self, keys: list[WindowKey]) -> None:
        windows = self._evidence.windows
        rows = {key: windows[key].tally.counts() for key in keys}
        for key in keys:
            windows[key].is_dirty = False
        try:
            await self._run(self._put_counts, rows)
        except BaseException:
            for key in keys:
                windows[key].is_dirty = True
            raise
        for key in keys:
            windows[key].is_written = True

    def _put_counts(self, rows: dict[WindowKey, Counts]) -> None:
        self._put_all(
            [
                window_of(key, counts, node=self._node, boot=self._own.boot, closed=False)
                for key, counts in rows.items()
            ]
        )

    def _put_all(self, windows: list[Window]) -> None:
        for at in range(0, len(windows), AT_ONCE):
            self._put(windows[at : at + AT_ONCE])

    def _forget(self) -> None:
        """Forget minutes that the records have and that change no more."""
        minute = time.time_ns() // 1000 // MICROS_A_MINUTE
        floor = self._evidence.floor = max(self._evidence.floor, minute - KEPT_MINUTES)
        windows, last = self._evidence.windows, dict[tuple[object, ...], int]()
        for key in windows:
            last[key[:3]] = max(last.get(key[:3], 0), key.minute)
        # Of a step that goes on, or that is not written whole, the last minute stays: by a row of
        # it the step is closed.
        open_steps = {key[:3] for key, one in windows.items() if one.is_dirty or self._goes_on(key)}
        for key in [
            key
            for key, window in windows.items()
            if not window.is_dirty
            and key.minute < floor
            and not (key[:3] in open_steps and key.minute == last[key[:3]])
        ]:
            del windows[key]

    def _goes_on(self, key: WindowKey) -> bool:
        served = self._table.served.get(key.use_case)
        release = served.release if served else None
        return release is not None and (release.id, release.step) == (key.release, key.step)


def put_together(windows: dict[WindowKey, Counted]) -> None:
    """Add each second minute that the records know nothing of to the one after it."""
    before: dict[tuple[object, ...], WindowKey] = {}
    for key in sorted(windows, key=lambda one: one.minute):
        group = key[:5]
        if windows[key].is_written:
            before.pop(group, None)
        elif group in before:
            windows[key].tally.add(windows.pop(before.pop(group)).tally)
        else:
            before[group] = key
