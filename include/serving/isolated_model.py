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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil

from include.errors import ArtefactError, Unavailable
from include.models.bento_sources import copy_verified, sources_folder
from include.processes import bare_environment
from include.serving.child_limits import bound_process
from include.serving.http import Refusal
from include.serving.snapshot import RemoteScore

log = logging.getLogger(__name__)

DEADLINE = 0.5  # seconds for one answer
FAILURES = 3  # in a row, after which it is asked no more
PROBE_SECONDS = 1.0
MAX_WAITING = 64  # questions at once: more would only wait behind each other
MAX_REPLY = 1 << 20  # bytes of a line; the longest, the features of a model, has some kilobytes
MAX_QUEUED = 1024  # questions of a champion that wait for a place among those
QUEUE_SECONDS = 2.0  # for so long one waits, at most

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


class _Reply(msgspec.Struct):
    """One line of the process.

    The first one, without an id, says how many golden rows were answered and what a row must hold.
    `micros` is how long the model took; Bentos of before do not say it.
    """

    id: int = 0
    score: float | None = None
    micros: int | None = None
    error: str | None = None
    feature: str | None = None
    golden: int = 0
    features: list[str] = []


_decode = msgspec.json.Decoder(_Reply).decode


class IsolatedModel(asyncio.Protocol):
    """The node's end of the socket.

    A breaker opens after failures in a row. Only a probe in the background closes it: letting the
    next requests through instead would make each of them wait for the deadline.
    """

    def __init__(self, version: str) -> None:
        """Build it; `version` is how messages call the model. `start` is what others use."""
        self._version = version
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._hello: asyncio.Future[_Reply] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[_Reply]] = {}
        self._buffer = b""
        self._count = self._failures = 0
        self._code: Path | None = None  # the copy that the process runs, removed when it ends
        self._in_hand = 0  # questions that have a place; the others stand in the queue
        self._queue: deque[asyncio.Future[None]] = deque()
        self._probe: asyncio.Task[None] | None = None
        self._last: Mapping[str, object] = {}
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
        node_end, process_end = socket.socketpair()
        isolated = cls(bento_tag)
        isolated._code = source
        environment = bare_environment(PYTHONPATH=str(source), OMP_NUM_THREADS="1")
        try:
            node_end.setblocking(False)
            isolated._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(source / "lane.py"),
                str(process_end.fileno()),
                bundle,
                digest,
                cwd=source,
                env=environment,
                pass_fds=(process_end.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
            bound_process(isolated._process.pid, bundle)
        finally:
            # The process has its own copy: while this one is open, its death would not be seen.
            process_end.close()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(isolated.close)  # also when this very start is cancelled
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: isolated, sock=node_end)
            try:
                async with asyncio.timeout(seconds):
                    hello = await isolated._hello
            except (TimeoutError, Unavailable) as error:
                raise Unavailable(
                    f"bento {bento_tag}: its process died or hung before it answered its golden "
                    "rows"
                ) from error
            if hello.error is not None or not hello.golden:
                raise ArtefactError(
                    f"bento {bento_tag} refuses its model: {hello.error or 'no golden rows'}"
                )
            on_failure.pop_all()
        isolated.features = hello.features
        return isolated

    @property
    def alive(self) -> bool:
        """Whether the process can still be asked."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, row: Mapping[str, object], *, patient: bool = False) -> RemoteScore:
        """Return the score of a row, and how long the model took.

        A `patient` question waits where too many are on their way: nobody stands behind a champion,
        or another model would answer for it whenever there is much to do.

        Raises:
            Refusal: 422, the row is wrong.
            Unavailable: no answer within the deadline, or none is expected.
        """
        if self._probe is not None or not self.alive:
            raise Unavailable(f"{self._version} does not answer at present")
        if self._in_hand >= MAX_WAITING:
            if not patient or len(self._queue) >= MAX_QUEUED:
                raise Unavailable(f"{self._version} does not answer at present")
            await self._wait_for_place()
        else:
            self._in_hand += 1
        try:
            return await self._ask(row)
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

    async def _ask(self, row: Mapping[str, object]) -> RemoteScore:
        if self._probe is not None or not self.alive:  # since it has begun to wait
            raise Unavailable(f"{self._version} does not answer at present")
        self._last = row
        try:
            reply = await self._exchange(row)
        except Unavailable:
            self._failures += 1
            if self._failures >= FAILURES and self._probe is None:
                self._probe = asyncio.create_task(self._until_it_answers())
            raise
        self._failures = 0
        if reply.feature is not None:
            raise Refusal(
                422, "invalid", reply.error or "is wrong", field=f"features.{reply.feature}"
            )
        if reply.score is None:
            raise Unavailable(f"{self._version} answers no score")
        return RemoteScore(reply.score, reply.micros)

    def close(self) -> None:
        """End the process; it keeps nothing."""
        if self._probe is not None:
            self._probe.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._remove_code()

    def _remove_code(self) -> None:
        if self._code is not None:
            shutil.rmtree(self._code, ignore_errors=True)
            self._code = None

    async def _exchange(self, row: Mapping[str, object]) -> _Reply:
        """Send a question and return its reply; several may be on their way, told apart by id."""
        loop = asyncio.get_running_loop()
        self._count += 1
        number = self._count
        future: asyncio.Future[_Reply] = loop.create_future()
        if self._transport is None:
            raise Unavailable(f"{self._version} has no process")
        self._waiting[number] = future
        self._transport.write(_encode({"id": number, "row": row}) + b"\n")
        timer = loop.call_later(DEADLINE, self._late, number)
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(number, None)

    async def _until_it_answers(self) -> None:
        """Ask the last row again until it is answered; then callers' questions are let through."""
        while self.alive:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._exchange(self._last)
            except Exception as error:  # noqa: BLE001 - a probe that died would never close it
                log.debug("%s: the probe failed: %s", self._version, error)
            else:
                break
        self._failures, self._probe = 0, None

    def _late(self, number: int) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_exception(
                Unavailable(f"{self._version} gave no answer in {DEADLINE * 1000:.0f} ms")
            )

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand replies to whoever waits for them."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_REPLY:
            self.close()
            return
        for line in lines:
            try:
                reply = _decode(line)
            except msgspec.DecodeError:  # a process that talks nonsense is one that does not answer
                self.close()
                return
            future: asyncio.Future[Any] | None = (
                self._waiting.get(reply.id) if self._hello.done() else self._hello
            )
            if future is not None and not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        gone = Unavailable(f"{self._version}: its process has ended")
        for future in [self._hello, *self._waiting.values()]:
            if not future.done():
                future.set_exception(gone)
        self._remove_code()
        if self._hello.done() and self._hello.exception() is not None:
            return
        self.on_end()
