"""The node's reader of online features in Redis: a deadline a question, and never a request's wait.

Pointer and rows come in one round trip. After failures in a row nothing is asked until a probe in
the background is answered: requests would otherwise wait out the deadline, each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, Literal

import redis.asyncio
from redis.exceptions import RedisError

from include.config.settings import Settings
from include.errors import Unavailable
from include.features.online_redis import (
    READ,
    Keys,
    Reply,
    client_options,
    lost,
    place,
    read_described,
    unavailable,
)
from include.features.online_store import OnlineSet, Value

log = logging.getLogger(__name__)

DEADLINE = 0.02  # seconds for one answer, a new connection included
FAILURES = 3  # in a row, after which only the probe asks
PROBE_SECONDS, PROBE_DEADLINE = 0.5, 1.0  # a connection over TLS to far away takes longer at first
STALL = 0.005  # seconds; a loop that is half of that late has stalled
MAX_CONNECTIONS = 64
_ERRORS = (RedisError, OSError, TimeoutError, Unavailable)


class ReadRows:
    """Rows that were read for one request; asked as the online store itself is."""

    __slots__ = ("_place", "_reply", "_set", "_where")
    is_remote: ClassVar[Literal[False]] = False

    def __init__(
        self, online_set: OnlineSet | None, reply: Reply | None, at: Mapping[str, int], where: str
    ) -> None:
        self._set, self._reply, self._place, self._where = online_set, reply, at, where

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of the feature set that was asked for, or None."""
        return self._set

    def get(self, feature_set: str, entity: str) -> tuple[int, list[Value]] | None:
        """Return the event time and the values of an entity that was asked for, or None.

        Raises:
            Unavailable: the rows are gone.
        """
        return None if self._reply is None else self._reply.row(self._place[entity], self._where)


class Away:
    """Stands for rows that could not be read: whoever asks for one is told why."""

    __slots__ = ("_reason",)
    is_remote: ClassVar[Literal[False]] = False

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Tell why.

        Raises:
            Unavailable: always.
        """
        raise Unavailable(self._reason)

    def get(self, feature_set: str, entity: str) -> tuple[int, list[Value]] | None:
        """Tell why.

        Raises:
            Unavailable: always.
        """
        raise Unavailable(self._reason)


class RemoteOnline:
    """The online store of one use case in Redis; belongs to the event loop."""

    is_remote: ClassVar[Literal[True]] = True

    def __init__(
        self, settings: Settings, use_case: str, *, count: Callable[[str], object]
    ) -> None:
        """Build it, and begin to connect; `count` is told what happens to it.

        Raises:
            ConfigError: the setting is no address of Redis.
        """
        self._where, self._use_case, self._count = place(settings), use_case, count
        self._prefix = settings.online_keys
        self._client = redis.asyncio.Redis.from_url(
            settings.online_url.get_secret_value(),
            socket_connect_timeout=PROBE_DEADLINE,
            max_connections=MAX_CONNECTIONS,
            **client_options(),
        )
        self._sets: dict[str, tuple[bytes, OnlineSet]] = {}  # by feature set, with its publication
        self._failures = 0
        self._probe: asyncio.Task[None] | None = asyncio.create_task(self._until_it_answers(0.0))

    async def read(self, feature_set: str, entities: Sequence[str]) -> ReadRows | Away:
        """Return the rows of some entities, or what tells that the store is away."""
        if self._probe is not None:
            self._count("store_away")
            return Away(f"{self._where} does not answer at present")
        try:
            rows = await self._in_time(self._read(feature_set, entities))
        except _ERRORS as error:
            self._count("store_away")
            return Away(self._failed(error))
        self._failures = 0
        return rows

    async def _in_time(self, reading: Awaitable[ReadRows]) -> ReadRows:
        """Wait for an answer until the deadline.

        Where the loop itself was late, the answer may lie in the socket already, and a timer comes
        first: it is put off once, so that a stall of this process is not taken for the store's.

        Raises:
            TimeoutError: there was none.
        """
        loop = asyncio.get_running_loop()
        due, timers = loop.time() + DEADLINE, list[asyncio.TimerHandle]()
        async with asyncio.timeout(None) as limit:

            def expire(patience: float) -> None:
                if patience and loop.time() - due > patience / 2:
                    timers.append(loop.call_later(patience, expire, 0.0))
                else:
                    limit.reschedule(loop.time())

            timers.append(loop.call_at(due, expire, STALL))
            try:
                return await reading
            finally:
                for timer in timers:
                    timer.cancel()

    def refresh(self) -> None:
        """Do nothing: each answer says by itself of which publication it is."""

    def close(self) -> None:
        """Ask no more; connections end in the background."""
        if self._probe is not None:
            self._probe.cancel()
        # Kept by the loop until it is done; nobody waits for a server that hangs.
        closing = asyncio.get_running_loop().create_task(self._disconnect())
        closing.add_done_callback(lambda _: None)

    async def _read(self, feature_set: str, entities: Sequence[str]) -> ReadRows:
        keys = Keys.of(self._prefix, self._use_case, feature_set)
        known = self._sets.get(feature_set)
        answered = await self._client.eval(
            READ, 1, keys.pointer, known[0] if known else b"", keys.rows, *entities
        )
        reply = Reply.read(answered)
        if reply is None:
            if known is not None:  # it was there, and nobody takes a feature set away: a flush
                raise lost(self._where)
            return ReadRows(None, None, {}, self._where)
        if known is None or known[0] != reply.publication:
            known = (reply.publication, read_described(feature_set, reply.described))
            self._sets[feature_set] = known
        places = {entity: at for at, entity in enumerate(entities)}
        return ReadRows(known[1], reply, places, self._where)

    def _failed(self, error: Exception) -> str:
        """Count a failure; return what callers are told."""
        self._failures += 1
        if isinstance(error, Unavailable):
            return str(error)
        late = isinstance(error, TimeoutError) and not isinstance(error, RedisError)
        reason = f"no answer in {DEADLINE * 1000:.0f} ms" if late else str(error)
        if self._failures >= FAILURES and self._probe is None:
            log.warning("%s: %s; it is asked by a probe alone", self._where, reason)
            self._probe = asyncio.create_task(self._until_it_answers(PROBE_SECONDS))
        return (
            str(unavailable(self._where, TimeoutError(reason)))
            if late
            else str(unavailable(self._where, error))
        )

    async def _until_it_answers(self, pause: float) -> None:
        """Ask for a sign of life until there is one; then requests are let through again."""
        failed = False
        await asyncio.sleep(pause)
        while not await self._answers(is_quiet=failed):
            failed = True
            await asyncio.sleep(PROBE_SECONDS)
        if failed:
            log.info("%s answers again", self._where)
        self._failures, self._probe = 0, None

    async def _answers(self, *, is_quiet: bool) -> bool:
        """Tell whether the store answers a probe; why not is logged unless it was before."""
        try:
            async with asyncio.timeout(PROBE_DEADLINE):
                await self._client.ping()
        except Exception as error:  # noqa: BLE001 - a probe that died would never close it
            if not is_quiet:
                log.warning("%s does not answer the probe: %s", self._where, error)
            return False
        return True

    async def _disconnect(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(PROBE_DEADLINE):
                await self._client.aclose()
