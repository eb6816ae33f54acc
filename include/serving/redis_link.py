"""A connection to Redis on which many questions are on their way at once; replies come in order.

The client library's own connections carry one question each and cost four times the CPU: at 128
callers their turn on the node's loop took longer than the deadline. The parser is the library's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import hiredis
import redis

from include.errors import Unavailable

MAX_WAITING = 4096  # questions on their way; of a server that hangs far fewer are asked
Word = str | bytes | int
_NOTHING = object()  # what the parser gives while a reply is not whole


class RedisLink(asyncio.Protocol):
    """One connection; `on_end` is called when it ends by itself."""

    def __init__(self) -> None:
        """Build it; `open` is what others use."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._since = 0.0  # of what is waited for, nothing has come since; in the loop's seconds
        self.on_end: Callable[[], None] = lambda: None

    @classmethod
    async def open(cls, address: str) -> RedisLink:
        """Connect, log in, choose the database, and return when the server answers.

        Raises:
            Unavailable: it refuses.
            OSError: it is not there.
        """
        pool = redis.ConnectionPool.from_url(address)
        parts, loop = pool.connection_kwargs, asyncio.get_running_loop()
        if path := parts.get("path"):
            _, link = await loop.create_unix_connection(cls, path)
        else:
            host, port = parts.get("host", "localhost"), parts.get("port", 6379)
            secure = _tls(parts) if issubclass(pool.connection_class, redis.SSLConnection) else None
            _, link = await loop.create_connection(cls, host, port, ssl=secure)
        try:
            if password := parts.get("password"):
                user = [parts["username"]] if parts.get("username") else []
                await link.ask("AUTH", *user, password, seconds=None)
            if number := parts.get("db"):
                await link.ask("SELECT", number, seconds=None)
            await link.ask("PING", seconds=None)
        except BaseException:
            link.close()
            raise
        return link

    async def ask(self, *words: Word, seconds: float | None) -> Any:
        """Return the reply to a command; one that is late is thrown away when it comes.

        Raises:
            TimeoutError: there was none in time (None: whoever waits has a limit of its own).
            Unavailable: the server answers with an error, or the connection has ended.
        """
        if self._transport is None or len(self._waiting) >= MAX_WAITING:
            raise Unavailable("the connection has ended or is full")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._waiting:
            self._since = self._loop.time()
        self._waiting.append(future)
        if not self._unsent:  # what others ask in this turn of the loop goes with it
            self._loop.call_soon(self._send)
        self._unsent.append(hiredis.pack_command(cast(Any, words)))
        if seconds is None:
            return await future
        timer = self._loop.call_later(seconds, self._expire, future, 2)
        try:
            return await future
        finally:
            timer.cancel()

    @property
    def silent_seconds(self) -> float:
        """For how long replies are waited for and none has come, not even a late one."""
        return self._loop.time() - self._since if self._waiting else 0.0

    def close(self) -> None:
        """End the connection."""
        self.on_end = lambda: None
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _expire(self, future: asyncio.Future[Any], turns: int) -> None:
        """End the wait for a reply, after some more turns of the loop.

        A loop that is busy runs its timers before it reads its sockets, where the reply may lie.
        """
        if future.done():
            return
        if turns:
            self._loop.call_soon(self._expire, future, turns - 1)
        else:
            future.set_exception(TimeoutError())

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand replies to whoever waits for them; those of nobody any more are dropped."""
        self._since = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                future = self._waiting.popleft()
                if future.done():
                    continue
                if isinstance(reply, Exception):
                    future.set_exception(Unavailable(str(reply)))
                else:
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):  # nonsense, or more replies than questions
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._transport = None
        for future in self._waiting:
            if not future.done():
                future.set_exception(Unavailable("the connection has ended"))
        self._waiting.clear()
        self.on_end()


def _tls(parts: Mapping[str, Any]) -> ssl.SSLContext:
    """Return how a server is checked, by the options of its address."""
    context = ssl.create_default_context(cafile=parts.get("ssl_ca_certs"))
    if parts.get("ssl_certfile"):
        context.load_cert_chain(parts["ssl_certfile"], parts.get("ssl_keyfile"))
    if parts.get("ssl_check_hostname") is False or parts.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
    if parts.get("ssl_cert_reqs") == "none":
        context.verify_mode = ssl.CERT_NONE
    return context
