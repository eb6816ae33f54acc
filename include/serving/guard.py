"""The node's own guard: it takes a release's traffic home without Airflow and without the records.

It looks at what the node has counted (`guard_rules` says when that is a clear fail), and latches:
for that release, on this node, whatever is said to it later. A file beside the node's rows holds
the latches over restarts; the records are told when they can be reached, and with them it is a
*fail* for all nodes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from include.clock import utc_now
from include.files import written_aside
from include.serving.guard_rules import History
from include.serving.snapshot import Served
from include.serving.tally import Recent

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MAX_LATCHES = 100  # of releases that ended long ago the oldest go
_FORMAT: Final = 1
Run = Callable[..., Awaitable[None]]


class Latch(msgspec.Struct, frozen=True):
    """A release that this node gives nothing any more; `told` says that the records have it.

    They have it in the `epoch` in which they were told, and in the next one perhaps no more.
    """

    use_case: str
    release: str
    reason: str
    at: str
    told: bool = False
    epoch: int = 0


class _Content(msgspec.Struct):
    format: Literal[1]  # of another version nobody knows what it means
    latches: list[Latch]


_decode = msgspec.json.Decoder(_Content).decode
_encode = msgspec.json.Encoder().encode


class LatchFile:
    """The file of one node's latches."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, latches: list[Latch]) -> None:
        """Keep latches; they are on the disk when this returns.

        Raises:
            OSError: they cannot be written; what was there stays.
        """
        with written_aside(self.path, mode=0o600, durable=True) as temporary:
            temporary.write_bytes(_encode(_Content(_FORMAT, latches)))

    def read(self) -> list[Latch] | None:
        """Return what was kept; None: there is a file that cannot be read.

        A damaged one is put aside, and logged.
        """
        try:
            return _decode(self.path.read_bytes()).latches
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error("%s cannot be read: %s", self.path, error)
            return None
        except (ValueError, RecursionError) as error:
            log.error("%s is damaged (%s): what it held is not known any more", self.path, error)
        try:
            self.path.replace(self.path.with_suffix(".damaged"))
        except OSError as error:
            log.warning("%s cannot be put aside: %s", self.path, error)
        return None


class Guard:
    """Looks at a node's counts once a second; belongs to the event loop.

    `latched` is called with the use case, as soon as its traffic is to go home.
    """

    def __init__(
        self,
        file: LatchFile,
        *,
        latched: Callable[[str], object] = lambda use_case: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._clock, self.latched = file, clock, latched
        kept = file.read()
        self._latches = {(one.use_case, one.release): one for one in kept or ()}
        # Of a file that cannot be read nobody knows whether the release of now stood in it: the
        # first one of each use case gets nothing on this start. None: all is known.
        self._unknown: dict[str, str] | None = {} if kept is None else None
        self._histories: dict[str, tuple[tuple[str, int], History]] = {}
        self._epochs: dict[str, int] = {}  # of the records, by use case, at the last look
        self._kept = list(self._latches.values())  # as the file has them

    def why(self, use_case: str, release: str) -> str:
        """Return why a release gets nothing here, or ""."""
        latch = self._latches.get((use_case, release))
        if latch is not None:
            return latch.reason
        if self._unknown is not None and self._unknown.setdefault(use_case, release) == release:
            return "the file of its latches could not be read"
        return ""

    def observe(self, served: Served, arm: str, recent: Recent) -> None:
        """Take in what was counted of an arm just now."""
        release, name = served.release, served.use_case.name
        if release is None or not release.is_active or self.why(name, release.id):
            return
        step, known = (release.id, release.step), self._histories.get(name)
        if known is None or known[0] != step:  # another share is another coin
            known = self._histories[name] = step, History(release.availability)
        known[1].add(arm, recent, self._clock())

    def look(self, table: Mapping[str, Served]) -> None:
        """Latch what is a clear fail of the step that a use case is in now.

        What was counted in a step that is over is forgotten. Judged on, the minutes without answers
        would leave its last ones alone in the window, and a latch of after the promotion would be
        held against a champion.
        """
        self._tell_again(table)
        now = self._clock()
        for name, ((release, step), history) in list(self._histories.items()):
            present = table[name].release if name in table else None
            if present is None or (present.id, present.step) != (release, step):
                del self._histories[name]
            elif present.is_active and (reason := history.judge(now)):
                del self._histories[name]
                log.error(
                    "%s: this node takes the traffic of release %s home in step %d: %s",
                    name,
                    release,
                    step,
                    reason,
                )
                self._keep(Latch(name, release, reason, utc_now().isoformat()))
                self.latched(name)

    async def keep(self, run: Run, tell: Callable[[Latch], None]) -> None:
        """Keep in the file and tell the records what is new; then wait a second.

        `run` runs a function in a thread; `tell` records a latch, and raises while it cannot. That
        is apart from `look`: no look waits for a disk or a database.
        """
        await self._write(run)
        for latch in [one for one in self._latches.values() if not one.told]:
            await run(tell, latch)
            epoch = self._epochs.get(latch.use_case, 0)
            self._keep(msgspec.structs.replace(latch, told=True, epoch=epoch))
            await self._write(run)
        await asyncio.sleep(LOOK_SECONDS)

    def _tell_again(self, table: Mapping[str, Served]) -> None:
        """Have the records told again where they were restored: their copy may not have it."""
        for name, served in table.items():
            self._epochs[name] = served.epoch
            latch = served.release and self._latches.get((name, served.release.id))
            if latch and latch.told and latch.epoch != served.epoch:
                self._keep(msgspec.structs.replace(latch, told=False))

    async def _write(self, run: Run) -> None:
        latches = list(self._latches.values())
        if latches != self._kept:
            await run(self._file.write, latches)
            self._kept = latches

    def _keep(self, latch: Latch) -> None:
        self._latches[latch.use_case, latch.release] = latch
        while len(self._latches) > MAX_LATCHES:
            del self._latches[next(iter(self._latches))]
