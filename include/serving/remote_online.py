"""The node's reader of online features in Redis: a deadline a question, and never a request's wait.

Pointer and rows come in one round trip. Where nothing at all has come for a while, nothing is asked
until a probe in the background is answered: requests would otherwise wait out the deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

from include.config.settings import Settings
from include.errors import Unavailable
from include.features.online_redis_rows import (
    READ,
    Keys,
    Reply,
    lost,
    place,
    read_described,
    unavailable,
)
from include.features.online_rows import OnlineSet, RowsLost, Value
from include.serving.redis_link import RedisLink

log = logging.getLogger(__name__)

DEADLINE = 0.02  # seconds for one answer
# Seconds without any reply, after which only the probe asks. Not a number of late ones: one stall
# of the machine makes all that are on their way late, be it hundreds.
SILENCE = 0.25
PROBE_SECONDS, PROBE_DEADLINE = 0.5, 1.0  # a connection over TLS to far away takes longer at first


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
        self._prefix, self._address = settings.online_keys, settings.online_url
        self._sets: dict[str, tuple[bytes, OnlineSet]] = {}  # by feature set, with its publication
        self._link: RedisLink | None = None  # None while only the probe asks
        self.tried = asyncio.Event()  # it was asked once, whatever came of it
        self._probe = asyncio.create_task(self._until_it_answers())

    async def read(self, feature_set: str, entities: Sequence[str]) -> ReadRows | Away:
        """Return the rows of some entities, or what tells that the store is away."""
        link = self._link
        if link is None:
            self._count("store_away")
            return Away(f"{self._where} does not answer at present")
        try:
            rows = await self._read(link, feature_set, entities)
        except (TimeoutError, Unavailable) as error:
            self._count("store_away")
            return Away(self._failed(link, error))
        return rows

    def refresh(self) -> None:
        """Do nothing: each answer says by itself of which publication it is."""

    def close(self) -> None:
        """Ask no more."""
        self._probe.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _read(self, link: RedisLink, feature_set: str, entities: Sequence[str]) -> ReadRows:
        keys = Keys.of(self._prefix, self._use_case, feature_set)
        known = self._sets.get(feature_set)
        publication = known[0] if known else b""
        reply = Reply.read(
            await link.ask(
                "EVAL", READ, 1, keys.pointer, publication, keys.rows, *entities, seconds=DEADLINE
            )
        )
        if reply is None:
            if known is not None:  # it was there, and nobody takes a feature set away: a flush
                raise lost(self._where)
            return ReadRows(None, None, {}, self._where)
        if known is None or known[0] != reply.publication:
            known = (reply.publication, read_described(feature_set, reply.described))
            self._sets[feature_set] = known
        places = {entity: at for at, entity in enumerate(entities)}
        return ReadRows(known[1], reply, places, self._where)

    def _failed(self, link: RedisLink, error: Exception) -> str:
        """Give the connection up where it is silent; return what callers are told."""
        if isinstance(error, RowsLost):  # it answers, without what was published
            log.error("%s: what was published is gone: %s", self._use_case, error)
            return str(error)
        late = isinstance(error, TimeoutError)
        reason = f"no answer in {DEADLINE * 1000:.0f} ms" if late else str(error)
        if link.silent_seconds > SILENCE and self._link is link:
            link.close()
            self._begin_to_probe(reason)
        return str(unavailable(self._where, reason))

    def _begin_to_probe(self, reason: str) -> None:
        log.warning("%s: %s; it is asked by a probe alone", self._where, reason)
        self._link = None
        self._probe = asyncio.create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        """Connect anew until it answers; then requests are let through.

        Not on the connection of before: nobody may be at its other end any more.
        """
        failed = False
        while self._link is None:
            self._link = await self._connect_anew(is_quiet=failed)
            self.tried.set()
            if self._link is None:
                failed = True
                await asyncio.sleep(PROBE_SECONDS)
        if failed:
            log.info("%s answers again", self._where)
        self._link.on_end = lambda: self._begin_to_probe("the connection has ended")

    async def _connect_anew(self, *, is_quiet: bool) -> RedisLink | None:
        """Return a connection that answers, or None; why not is logged unless it was before."""
        try:
            async with asyncio.timeout(PROBE_DEADLINE):
                return await RedisLink.open(self._address.get_secret_value())
        except Exception as error:  # noqa: BLE001 - a probe that died would never close it
            if not is_quiet:
                reason = str(error) or type(error).__name__
                log.warning("%s does not answer the probe: %s", self._where, reason)
            return None
