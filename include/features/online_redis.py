"""Packed online features in Redis: a hash of rows a publication, and a pointer a feature set.

Keys, all of one feature set in one slot:

    PREFIX:{USE_CASE/SET}:online         publication, partition, description, number of rows
    PREFIX:{USE_CASE/SET}:rows:ID        entity -> event time and values, of one publication

A publication is written under an id of its own, and expires by itself until a script moves the
pointer: that is the last step, refuses an older partition, one that is not whole, and one that
another publication has overtaken. The rows before stay for a minute, for who is just reading them.
A reader gets pointer and row from one script, in one round trip.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

from include.config.settings import Settings
from include.errors import ConfigError, Conflict, Unavailable
from include.features.online_redis_rows import (
    READ,
    Keys,
    Reply,
    described_text,
    join_row,
    lost,
    place,
    read_described,
    split_row,
    unavailable,
)
from include.features.online_rows import OnlineRow, OnlineSet, Value, unpack

KEEP_SECONDS = 60  # for so long the rows before stay readable
STAGING_SECONDS = 300  # after the last sign of its writer, a publication without a pointer is gone
ROWS_AT_ONCE = 1000
TIMEOUT = 10.0  # seconds that a stage waits for an answer; a node has a deadline of its own

_MOVE = """
local set = redis.call('HMGET', KEYS[1], 'publication', 'partition')
local publication, partition = set[1] or '', set[2] or ''
if partition > ARGV[2] then return {'older', partition} end
if publication ~= ARGV[3] then return {'overtaken', partition} end
if redis.call('HLEN', KEYS[2]) ~= tonumber(ARGV[5]) then return {'incomplete', partition} end
redis.call('PERSIST', KEYS[2])
redis.call('HSET', KEYS[1], 'publication', ARGV[1], 'partition', ARGV[2], 'described', ARGV[4],
           'rows', ARGV[5])
if publication ~= '' then redis.call('EXPIRE', KEYS[3], ARGV[6]) end
return {'moved', ARGV[2]}
"""

_DROP = """
if redis.call('HGET', KEYS[1], 'publication') ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2])
return 1
"""


class RedisStore:
    """The online features of a use case in Redis, for stages and commands."""

    def __init__(self, settings: Settings, use_case: str) -> None:
        """Build it; it connects with the first question.

        Raises:
            ConfigError: the setting is no address of Redis.
        """
        self.where = place(settings)
        self._use_case, self._prefix = use_case, settings.online_keys
        self._client = redis.Redis.from_url(
            settings.online_url.get_secret_value(),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # A stage is tried again as a whole, and says so; nothing is retried behind its back.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    def publish(
        self,
        described: OnlineSet,
        rows: Iterable[OnlineRow],
        *,
        check: Callable[[], None] | None = None,
        digest: Callable[[], str] | None = None,
    ) -> None:
        """Replace a feature set's rows and its watermark at once; see `OnlineStore`."""
        keys, publication = self._keys(described.feature_set), secrets.token_hex(8)
        staged = keys.rows + publication
        with self._errors():
            self._refuse_eviction()
            before = self._client.hmget(keys.pointer, ["publication", "partition"])
            present, partition = (_text(value) for value in cast(list[bytes | None], before))
            _refuse_older(described, partition)
        count = 0
        try:
            with self._errors():
                for part in _parts(rows):
                    self._stage(staged, part)
                    count += len(part)
            if digest is not None:
                described = replace(described, digest=digest())
            if check is not None:
                check()
            with self._errors():
                arguments = [publication, described.partition, present, described_text(described)]
                moved = self._client.eval(
                    _MOVE,
                    3,
                    *(keys.pointer, staged, keys.rows + present),
                    *(*arguments, str(count), str(KEEP_SECONDS)),
                )
        except BaseException:
            self._discard(staged, keys, publication)
            raise
        verdict, partition = (_text(value) for value in cast(list[bytes], moved))
        if verdict == "moved":
            return
        self._discard(staged, keys, publication)
        if verdict == "incomplete":
            raise Unavailable(
                f"online features in {self.where}: rows that were written are gone, or an entity "
                "stands twice; check that nothing evicts or flushes them, then run it again"
            )
        _refuse_older(described, partition)
        raise Conflict(
            f"features {described.feature_set} were published by somebody else meanwhile, from "
            f"partition {partition}; run it again"
        )

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""
        with self._errors():
            text = self._client.hget(self._keys(feature_set).pointer, "described")
        return None if text is None else read_described(feature_set, cast(bytes, text))

    def get(self, feature_set: str, entity: object) -> tuple[int, list[Value]] | None:
        """Return the event time (microseconds since 1970 UTC) and the values of an entity, or None.

        Raises:
            Unavailable: it does not answer, or has lost the rows of the publication.
        """
        keys = self._keys(feature_set)
        with self._errors():
            reply = self._client.eval(READ, 1, keys.pointer, "", keys.rows, str(entity))
        found = Reply.read(cast(list[Any], reply))
        return None if found is None else found.row(0, self.where)

    def rows(self, feature_set: str) -> Iterator[OnlineRow]:
        """Yield all packed rows in order of their entity's bytes, as of one moment.

        Raises:
            Unavailable: it does not answer, or does not have them all.
        """
        found = dict(self._stored(feature_set))
        for entity in sorted(found):
            event_ts, values = split_row(found[entity])
            yield entity.decode(), event_ts, values

    def count(self, feature_set: str, *, since: int | None = None) -> int:
        """Return how many entities are online; with `since`, whose row is not older than that."""
        if since is None:
            return self._publication(feature_set)[1]
        return sum(1 for _ in self._alive(feature_set, since))

    def shared(self, of: str, feature_set: str, *, since: tuple[int, int]) -> tuple[int, int]:
        """Return how many entities one feature set has, and how many of them another one too."""
        publication, _ = self._publication(feature_set)
        key, total, both = self._keys(feature_set).rows + publication, 0, 0
        for part in _parts(self._alive(of, since[0])):
            with self._errors():
                found = self._client.hmget(key, [entity for entity, _ in part])
            others = cast(list[bytes | None], found)
            both += sum(row is not None and split_row(row)[0] >= since[1] for row in others)
            total += len(part)
        return total, both

    def sample(self, feature_set: str, count: int, *, since: int) -> list[list[Value]]:
        """Return the stored values of some entities, as `count` counts them."""
        some = sorted(islice(self._alive(feature_set, since), count))
        return [unpack(split_row(row)[1]) for _, row in some]

    def remove_unneeded(self, needed: Collection[str], *, before: datetime) -> list[str]:
        """Remove the rows of feature sets that are not needed; return their versions."""
        gone = []
        beginning, end = Keys.of(self._prefix, self._use_case, "\0").pointer.split("\0")
        with self._errors():
            found = list(self._client.scan_iter(f"{beginning}*{end}", count=1000))
        for pointer in found:
            version = pointer.decode().removeprefix(beginning).removesuffix(end)
            if version in needed:
                continue
            online_set = self.describe(version)
            if online_set is None or online_set.written >= before:
                continue
            publication = self._publication(version)[0]
            rows = self._keys(version).rows + publication
            with self._errors():
                if self._client.eval(_DROP, 2, pointer, rows, publication):
                    gone.append(version)
        return sorted(gone)

    def remove(self) -> int:
        """Remove everything of the use case; return how many feature sets that were."""
        removed = 0
        with self._errors():
            for key in self._client.scan_iter(f"{self._prefix}:{{{self._use_case}/*", count=1000):
                self._client.unlink(key)
                removed += key.endswith(b":online")
        return removed

    def close(self) -> None:
        """Close its connections; the next question opens them again."""
        self._client.close()

    def _keys(self, feature_set: str) -> Keys:
        return Keys.of(self._prefix, self._use_case, feature_set)

    def _stage(self, staged: str, part: Sequence[OnlineRow]) -> None:
        """Write rows of a publication that nobody reads yet, and give the sign of life."""
        # Both or none: a writer that is killed in the middle of sending would leave rows for ever.
        with self._client.pipeline(transaction=True) as pipe:
            mapping = {entity: join_row(stamp, values) for entity, stamp, values in part}
            pipe.hset(staged, mapping=mapping)  # type: ignore[arg-type]
            pipe.expire(staged, STAGING_SECONDS)
            pipe.execute()

    def _discard(self, staged: str, keys: Keys, publication: str) -> None:
        """Remove what was staged, unless the pointer stands on it: an answer may have been lost."""
        try:
            if self._client.hget(keys.pointer, "publication") != publication.encode():
                self._client.unlink(staged)
        except (RedisError, OSError):
            pass  # it expires by itself

    def _publication(self, feature_set: str) -> tuple[str, int]:
        """Return the id of what is online and how many rows it has; none: '' and 0."""
        with self._errors():
            found = self._client.hmget(self._keys(feature_set).pointer, ["publication", "rows"])
        publication, rows = (_text(value) for value in cast(list[bytes | None], found))
        return publication, int(rows or 0)

    def _stored(self, feature_set: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield entity and packed row of what is online, each once, in no order.

        Raises:
            Unavailable: rows are missing at the end: evicted, flushed, or replaced for longer than
                they stay.
        """
        publication, rows = self._publication(feature_set)
        seen: set[bytes] = set()
        with self._errors():
            key = self._keys(feature_set).rows + publication
            for entity, row in self._client.hscan_iter(key, count=ROWS_AT_ONCE):
                if entity not in seen:  # a scan may give one twice
                    seen.add(entity)
                    yield entity, row
        if len(seen) != rows:
            raise lost(self.where)

    def _alive(self, feature_set: str, since: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield entity and packed row of what is online and not older than `since`."""
        for entity, row in self._stored(feature_set):
            if split_row(row)[0] >= since:
                yield entity, row

    def _refuse_eviction(self) -> None:
        """Refuse a server that would throw rows away where memory is short: they are no cache.

        Raises:
            ConfigError: it would.
        """
        try:
            memory = self._client.info("memory")
        except NoPermissionError:
            return  # it hides that from us; whoever runs it has read the settings' page
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            raise ConfigError(
                f"{self.where} evicts keys ({policy}) where memory is short, and an entity whose "
                "row is evicted would look like an unknown one; set maxmemory-policy noeviction"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the client and the network into `Unavailable`, which names the place."""
        try:
            yield
        except (RedisError, OSError) as error:
            raise unavailable(self.where, f"{type(error).__name__}: {error}") from error


def _refuse_older(described: OnlineSet, partition: str) -> None:
    if partition > described.partition:
        raise Conflict(
            f"features {described.feature_set} are online from partition {partition}; "
            f"the older {described.partition} does not replace it"
        )


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()


def _parts(rows: Iterable[Any]) -> Iterator[list[Any]]:
    given = iter(rows)
    while part := list(islice(given, ROWS_AT_ONCE)):
        yield part
