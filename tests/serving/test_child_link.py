"""Many questions over one socket: together by one write, each told once, whatever the other end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from include.errors import Unavailable
from include.serving import child_link
from include.serving.child_link import ChildLink, Late, Reply

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[ChildLink, socket.socket, list[str]]]:
    """Give a link, the other end of its socket, and whether the link was told of its end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    ended: list[str] = []
    link = ChildLink("model 1", lambda: ended.append("ended"))
    await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
    theirs.send(b'{"golden":1,"features":["income"]}\n')
    assert (await link.hello).features == ["income"]
    try:
        yield link, theirs, ended
    finally:
        link.close()
        theirs.close()


async def received(theirs: socket.socket) -> list[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        text = await loop.sock_recv(theirs, 1 << 16)
    return [json.loads(line) for line in text.splitlines()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_questions_of_a_turn_leave_together_and_their_replies_find_them() -> None:
    async with linked() as (link, theirs, _):
        told: dict[int, float | None] = {}

        def done(number: int) -> child_link.Done:
            return lambda reply: told.__setitem__(
                number, reply.score if isinstance(reply, Reply) else None
            )

        for number in range(5):
            link.send(b'{"income":%d}' % number, done(number), 60.0)
        asked = await received(theirs)
        assert [one["row"] for one in asked] == [{"income": number} for number in range(5)]
        lines = [json.dumps({"id": one["id"], "score": one["row"]["income"] / 10}) for one in asked]
        theirs.send("\n".join(reversed(lines)).encode())  # the last line is not whole yet
        await until(lambda: len(told) == 4)
        assert sorted(told) == [1, 2, 3, 4]
        theirs.send(b"\n")
        await until(lambda: len(told) == 5)
        assert told == {number: number / 10 for number in range(5)}


async def test_each_is_told_within_its_time_and_a_late_reply_is_nobodys() -> None:
    async with linked() as (link, theirs, _):
        loop, told = asyncio.get_running_loop(), list[tuple[float, object]]()
        began = loop.time()

        def done(seconds: float) -> child_link.Done:
            return lambda reply: told.append((loop.time() - began - seconds, reply))

        for seconds in (0.5, 0.05, 0.05):
            link.send(b"{}", done(seconds), seconds)
        forgotten = link.send(b"{}", lambda reply: told.append((0.0, "forgotten")), 0.05)
        link.forget(forgotten)
        numbers = [one["id"] for one in await received(theirs)]
        await until(lambda: len(told) == 3)
        words = [str(reply).rpartition(" in ")[2] for _, reply in told]
        assert words == ["50 ms", "50 ms", "500 ms"], "behind none of more patience"
        assert all(isinstance(reply, Late) and late > -0.01 for late, reply in told)
        theirs.send(b"".join(b'{"id":%d,"score":0.5}\n' % number for number in numbers))
        await asyncio.sleep(0.05)
        assert len(told) == 3
        link.send(b"{}", lambda reply: told.append((0.0, reply)), 0.05)
        await until(lambda: len(told) == 4)
        assert isinstance(told[-1][1], Late), "the clock runs for later questions too"


@pytest.mark.parametrize(
    "last",
    [
        b"no json\n",
        b"x" * (child_link.MAX_REPLY + 1),
        b"",
        # Times that no line of the log could hold, or that would make a model quick.
        b'{"id":1,"score":0.5,"micros":1000000000000000000000000}\n',
        b'{"id":1,"score":0.5,"micros":-1}\n',
    ],
)
async def test_an_end_that_closes_or_babbles_is_told_to_all_who_wait(last: bytes) -> None:
    async with linked() as (link, theirs, ended):
        told: list[object] = []
        link.send(b"{}", told.append, 60.0)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(theirs, last)
        if not last:
            theirs.close()
        await until(lambda: bool(ended))
        assert [type(one) for one in told] == [Unavailable]
        assert not link.is_open
