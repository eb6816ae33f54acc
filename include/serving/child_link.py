"""Questions and replies over the socket of a model's process, many at a time.

The questions of one turn of the event loop leave by one write, and what one read brings is handed
out reply by reply: a question alone costs either end as much as all of a turn.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Annotated, cast

import msgspec

from include.errors import Unavailable

MAX_REPLY = 1 << 20  # bytes of a line; the longest, the features of a model, has some kilobytes
MAX_MICROS = 3_600_000_000  # an hour; who says more, or less than nothing, talks nonsense
TOGETHER = 16  # questions after which a turn's are sent, so that the process may begin


class Reply(msgspec.Struct):
    """One line of the process.

    The first one, without an id, says how many golden rows were answered and what a row must hold.
    `micros` is how long the model took; Bentos of before do not say it.
    """

    id: int = 0
    score: float | None = None
    micros: Annotated[int, msgspec.Meta(ge=0, le=MAX_MICROS)] | None = None
    error: str | None = None
    feature: str | None = None
    golden: int = 0
    features: list[str] = []


class Late(Unavailable):
    """No reply within the deadline."""


Done = Callable[[Reply | Unavailable], object]  # told the reply, or why there is none
_decode = msgspec.json.Decoder(Reply).decode


def _read_reply(line: bytes) -> Reply:
    """Return a line of the process; NaN is an answer, though none that JSON knows.

    Python's own JSON writes it so, and a model that answers it once is not to lose its process.

    Raises:
        ValueError: the line is no reply.
    """
    try:
        return _decode(line)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(line), Reply)


class _Due:
    """When questions of one deadline end, the oldest first: one timer for all of them."""

    def __init__(self) -> None:
        self.numbers: deque[tuple[float, int]] = deque()
        self.timer: asyncio.TimerHandle | None = None


class ChildLink(asyncio.Protocol):
    """The node's end of the socket; `ended` is called when the process closes the other one."""

    def __init__(self, version: str, ended: Callable[[], object]) -> None:
        """Build it; `version` is how messages call the model."""
        self._version, self._ended = version, ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.hello: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting: dict[int, Done] = {}
        self._due: dict[float, _Due] = {}  # by the seconds that are given to answer
        self._unsent: list[bytes] = []
        self._buffer, self._count = b"", 0

    @property
    def is_open(self) -> bool:
        """Whether the process can still be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, row: bytes, done: Done, seconds: float) -> int:
        """Ask for the score of a row as JSON; `done` is called once, within so many seconds.

        Returns the number by which the question may be forgotten.
        """
        self._count += 1
        number = self._count
        self._waiting[number] = done
        unsent = self._unsent
        if not unsent:
            self._loop.call_soon(self._flush)
        unsent.append(b'{"id":%d,"row":%b}\n' % (number, row))
        if len(unsent) >= TOGETHER:
            self._flush()
        due = self._due.get(seconds)
        if due is None:
            due = self._due[seconds] = _Due()
        end = self._loop.time() + seconds
        due.numbers.append((end, number))
        if due.timer is None:
            due.timer = self._loop.call_at(end, self._expire, seconds, due)
        return number

    def forget(self, number: int) -> None:
        """Wait for a reply no longer."""
        self._waiting.pop(number, None)

    def close(self) -> None:
        """Close the socket, by which the process ends."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None:
            self._transport.write(b"".join(unsent))

    def _expire(self, seconds: float, due: _Due) -> None:
        """Tell those whose time is over, and come again when the next one's is."""
        due.timer, now, numbers = None, self._loop.time(), due.numbers
        while numbers and (numbers[0][0] <= now or numbers[0][1] not in self._waiting):
            if (done := self._waiting.pop(numbers.popleft()[1], None)) is not None:
                done(Late(f"{self._version} gave no answer in {seconds * 1000:.0f} ms"))
        if numbers and due.timer is None:
            due.timer = self._loop.call_at(numbers[0][0], self._expire, seconds, due)

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
                reply = _read_reply(line)
            except (ValueError, RecursionError):  # who talks nonsense is one that does not answer
                self.close()
                return
            if not self.hello.done():
                self.hello.set_result(reply)
            elif (done := self._waiting.pop(reply.id, None)) is not None:
                done(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        gone = Unavailable(f"{self._version}: its process has ended")
        if not self.hello.done():
            self.hello.set_exception(gone)
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(gone)
        for due in self._due.values():
            if due.timer is not None:
                due.timer.cancel()
        self._ended()
