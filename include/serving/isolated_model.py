"""A model in a process of its own, asked over a socket.

Each question has a deadline; after failures in a row the process is asked no more until it answers
a probe; it ends with the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from include.config.settings import ROOT
from include.errors import ArtefactError, Unavailable
from include.models.bento_sources import copy_verified, sources_folder
from include.processes import bare_environment, python_module
from include.serving.child_limits import bound_process
from include.serving.child_link import ChildLink, Done, Reply
from include.serving.http import Refusal
from include.serving.snapshot import RemoteScore

log = logging.getLogger(__name__)

DEADLINE = 0.5  # seconds for one answer
FAILURES = 3  # in a row, after which it is asked no more
PROBE_SECONDS = 1.0
MAX_WAITING = 64  # questions at once: more would only wait behind each other
MAX_POSTED = 512  # the same of questions that nobody waits for by a task of its own
MAX_QUEUED = 1024  # questions that wait for a place among the former
QUEUE_SECONDS = 2.0  # for so long one waits, at most

# The same file as `lane.py` in Bentos; started by its name, as nothing of packaging is imported.
OWN_WORKER = "include.packaging.bento.worker"
_encode = msgspec.json.Encoder().encode


def new_code_folder(home: Path) -> Path:
    """Return an empty folder of this user alone; those of nodes that are dead are removed."""
    folder = home / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("code-*"):
        owner = left.name.split("-")[1]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"code-{os.getpid()}-", dir=folder))


class IsolatedModel(asyncio.Protocol):
    """A process that answers for one model.

    A breaker opens after failures in a row. Only a probe in the background closes it: letting the
    next requests through instead would make each of them wait for the deadline.
    """

    def __init__(self, version: str) -> None:
        """Build it; `version` is how messages call the model. `start` is what others use."""
        self._version = version
        self._link = ChildLink(version, self._link_ended)
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0
        self._code: Path | None = None  # the copy that the process runs, removed when it ends
        self._in_hand = 0  # questions that have a place; the others stand in the queue
        self._queue: deque[asyncio.Future[None]] = deque()
        self._probe: asyncio.Task[None] | None = None
        self._last = b"{}"
        self.features: list[str] = []
        self.on_end: Callable[[], None] = lambda: None

    @classmethod
    async def start(
        cls,
        home: Path,
        bento_tag: str,
        bundle: str,
        digest: str,
        *,
        seconds: float,
        code_digest: str | None,
    ) -> IsolatedModel:
        """Start the process of a Bento and return when it says that it has its model.

        Its code is verified file by file, and run from a private copy of what was verified. Code of
        which no digest is recorded (None) is refused.

        Raises:
            ArtefactError: the Bento is not what was recorded, or refuses its model.
            Unavailable: it is not there, or its process died or hung: that may be the machine's
                fault.
        """
        kept = sources_folder(home, bento_tag)
        if not (kept / "lane.py").is_file():
            raise Unavailable(
                f"bento {bento_tag} is not in {home / 'bento'}; run package_model for its "
                "partition again"
            )
        source = new_code_folder(home)
        try:
            await asyncio.to_thread(copy_verified, kept, code_digest, source)
        except BaseException:
            shutil.rmtree(source, ignore_errors=True)
            raise
        isolated = cls(bento_tag)
        isolated._code = source
        return await isolated._launch(
            [sys.executable, str(source / "lane.py")],
            bundle,
            digest,
            folder=source,
            seconds=seconds,
            label=f"bento {bento_tag}",
        )

    @classmethod
    async def start_own(
        cls, home: Path, bundle: str, digest: str, *, seconds: float
    ) -> IsolatedModel:
        """Start a process of this very installation's code for a model that fits it.

        It speaks the same protocol: it is the module that every Bento ships.

        Raises:
            ArtefactError: the model is not what was recorded, or misses its golden rows.
            Unavailable: its process died or hung: that may be the machine's fault.
        """
        isolated = cls(f"model {Path(bundle).name}")
        return await isolated._launch(
            python_module(OWN_WORKER),
            str(Path(bundle).resolve()),
            digest,
            folder=ROOT,
            seconds=seconds,
            label=bundle,
        )

    async def _launch(
        self,
        command: Sequence[str],
        bundle: str,
        digest: str,
        *,
        folder: Path,
        seconds: float,
        label: str,
    ) -> IsolatedModel:
        """Start the process and wait for its first word; `label` is how messages call it."""
        node_end, process_end = socket.socketpair()
        try:
            node_end.setblocking(False)
            self._process = await asyncio.create_subprocess_exec(
                *command,
                str(process_end.fileno()),
                bundle,
                digest,
                cwd=folder,
                env=bare_environment(PYTHONPATH=str(folder), OMP_NUM_THREADS="1"),
                pass_fds=(process_end.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
            bound_process(self._process.pid, bundle)
        finally:
            # The process has its own copy: while this one is open, its death would not be seen.
            process_end.close()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)  # also when this very start is cancelled
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self._link, sock=node_end)
            try:
                async with asyncio.timeout(seconds):
                    hello = await self._link.hello
            except (TimeoutError, Unavailable) as error:
                raise Unavailable(
                    f"{label}: its process died or hung before it answered its golden rows"
                ) from error
            if hello.error is not None or not hello.golden:
                raise ArtefactError(f"{label} refuses its model: {hello.error or 'no golden rows'}")
            on_failure.pop_all()
        self.features = hello.features
        return self

    @property
    def alive(self) -> bool:
        """Whether the process can still be asked."""
        return self._link.is_open

    def post(self, row: bytes, done: Done, seconds: float) -> bool:
        """Ask for the score of a row as JSON; tell whether it was asked.

        `done` is told the reply, or why there is none, within so many seconds.
        """
        if self._probe is not None or self._in_hand >= MAX_POSTED or not self.alive:
            return False
        self._last = row
        self._in_hand += 1

        def end(reply: Reply | Unavailable) -> None:
            self._leave_place()
            self._count(reply)
            done(reply)

        self._link.send(row, end, seconds)
        return True

    async def ask(self, row: Mapping[str, object], *, seconds: float | None = None) -> RemoteScore:
        """Return the score of a row, and how long the model took, within so many seconds.

        It waits where too many are on their way: nobody stands behind who answers, or another model
        would answer for it whenever there is much to do.

        Raises:
            Refusal: 422, the row is wrong.
            Unavailable: no answer within the deadline, or none is expected.
        """
        if self._probe is not None or not self.alive:
            raise Unavailable(f"{self._version} does not answer at present")
        if self._in_hand >= MAX_WAITING:
            if len(self._queue) >= MAX_QUEUED:
                raise Unavailable(f"{self._version} does not answer at present")
            await self._wait_for_place()
        else:
            self._in_hand += 1
        try:
            return await self._ask(_encode(row), DEADLINE if seconds is None else seconds)
        finally:
            self._leave_place()

    async def _wait_for_place(self) -> None:
        """Wait until a place is handed over; it is this one's then."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._leave_place()  # it was handed over as the wait for it ended
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    f"{self._version} had no time for it within {QUEUE_SECONDS:g} s"
                ) from None
            raise

    def _leave_place(self) -> None:
        """Hand a place to the next one in the queue that still waits, or give it back."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._in_hand -= 1

    async def _ask(self, row: bytes, seconds: float) -> RemoteScore:
        if self._probe is not None or not self.alive:  # since it has begun to wait
            raise Unavailable(f"{self._version} does not answer at present")
        self._last = row
        try:
            reply = await self._exchange(row, seconds)
        except Unavailable as error:
            self._count(error)
            raise
        self._count(reply)
        if reply.feature is not None:
            raise Refusal(
                422, "invalid", reply.error or "is wrong", field=f"features.{reply.feature}"
            )
        if reply.score is None:
            raise Unavailable(f"{self._version} answers no score")
        return RemoteScore(reply.score, reply.micros)

    def _count(self, reply: Reply | Unavailable) -> None:
        """Count failures in a row: after some of them it is asked by the probe alone."""
        if isinstance(reply, Reply):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAILURES and self._probe is None and self.alive:
            self._probe = asyncio.create_task(self._until_it_answers())

    def close(self) -> None:
        """End the process; it keeps nothing."""
        if self._probe is not None:
            self._probe.cancel()
        self._link.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._remove_code()

    def _remove_code(self) -> None:
        if self._code is not None:
            shutil.rmtree(self._code, ignore_errors=True)
            self._code = None

    async def _exchange(self, row: bytes, seconds: float) -> Reply:
        """Send a question and return its reply; several may be on their way."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def end(reply: Reply | Unavailable) -> None:
            if future.done():  # whoever asked has given up
                return
            if isinstance(reply, Reply):
                future.set_result(reply)
            else:
                future.set_exception(reply)

        number = self._link.send(row, end, seconds)
        try:
            return await future
        finally:
            self._link.forget(number)

    async def _until_it_answers(self) -> None:
        """Ask the last row again until it is answered; then callers' questions are let through."""
        while self.alive:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._exchange(self._last, DEADLINE)
            except Exception as error:  # noqa: BLE001 - a probe that died would never close it
                log.debug("%s: the probe failed: %s", self._version, error)
            else:
                break
        self._failures, self._probe = 0, None

    def _link_ended(self) -> None:
        self._remove_code()
        hello = self._link.hello
        if not (hello.done() and hello.exception() is not None):
            self.on_end()
