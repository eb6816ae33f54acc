"""How online features lie in Redis: names of keys, a row, the pointer, and the reading script."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis

from include.config.settings import Settings
from include.errors import ConfigError, Unavailable
from include.features.online_rows import (
    NO_DESCRIPTION,
    OnlineSet,
    RowsLost,
    Value,
    damaged,
    layout,
    layout_text,
    unpack,
)

_STAMP = struct.Struct(">q")

# Redis runs a script as a whole. EVAL with the text, not its digest: after a restart or a flush
# a digest is unknown, and the second try would be a second round trip.
READ = """
local set = redis.call('HMGET', KEYS[1], 'publication', 'described', 'rows')
if not set[1] then return {} end
local key = ARGV[2] .. set[1]
local rows = redis.call('HMGET', key, unpack(ARGV, 3))
local there = 1
for i = 1, #rows do
  if not rows[i] then there = redis.call('EXISTS', key); break end
end
if set[3] == '0' then there = 1 end
return {set[1], ARGV[1] == set[1] and '' or set[2], there, rows}
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of a feature set's keys; the braces keep them in one slot of a cluster."""

    base: str

    @classmethod
    def of(cls, prefix: str, use_case: str, feature_set: str) -> Keys:
        """Return the keys of a feature set."""
        return cls(f"{prefix}:{{{use_case}/{feature_set}}}")

    @property
    def pointer(self) -> str:
        """The pointer's key."""
        return f"{self.base}:online"

    @property
    def rows(self) -> str:
        """The beginning of the keys of rows; the publication follows."""
        return f"{self.base}:rows:"


def place(settings: Settings) -> str:
    """Return where the store is, without user and password.

    Raises:
        ConfigError: the setting is no address of Redis.
    """
    try:
        pool = redis.ConnectionPool.from_url(settings.online_url.get_secret_value())
    except ValueError:
        raise ConfigError(
            "EVERGREEN_ONLINE_URL is no address of Redis: give redis://HOST:PORT/NUMBER, "
            "rediss://... for TLS or unix:///PATH"
        ) from None
    parts = pool.connection_kwargs
    shown = parts.get("path") or f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
    return f"Redis {shown}/{parts.get('db', 0)}, keys {settings.online_keys}:*"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the reading script answers: a publication, its description if it is new, some rows."""

    publication: bytes
    described: bytes
    is_there: bool
    packed: Sequence[bytes | None]

    @classmethod
    def read(cls, reply: Sequence[Any]) -> Reply | None:
        """Return a reply of the script; None: nothing is online of the feature set.

        Raises:
            Unavailable: it is no reply of the script.
        """
        if reply == []:
            return None
        try:
            publication, described, is_there, packed = reply
        except (ValueError, TypeError):
            raise Unavailable("what answers is no Redis that runs scripts") from None
        return cls(publication, described, bool(is_there), packed)

    def row(self, at: int, where: str) -> tuple[int, list[Value]] | None:
        """Return the event time and values of an entity that was asked for, by its place.

        Raises:
            Unavailable: the publication's rows are gone, and this one may have been among them.
        """
        packed = self.packed[at]
        if packed is None:
            if not self.is_there:
                raise lost(where)
            return None
        event_ts, values = split_row(packed)
        return event_ts, unpack(values)


def described_text(described: OnlineSet) -> str:
    """Return what is known of a feature set as the pointer keeps it."""
    return json.dumps(
        {
            "layout": layout_text(described),
            "partition": described.partition,
            "ttl": described.ttl // timedelta(microseconds=1),
            "written": described.written.isoformat(),
            "inputs": described.inputs,
            "digest": described.digest,
        }
    )


def read_described(feature_set: str, text: bytes) -> OnlineSet:
    """Return what a pointer says of a feature set.

    Raises:
        RowsLost: this version cannot read it.
    """
    try:
        plain = json.loads(text)
        columns, views = layout(plain["layout"])
        return OnlineSet(
            feature_set,
            columns,
            plain["partition"],
            timedelta(microseconds=plain["ttl"]),
            datetime.fromisoformat(plain["written"]),
            plain["inputs"],
            plain["digest"],
            views,
        )
    except NO_DESCRIPTION as error:
        raise damaged(f"the pointer of feature set {feature_set} in Redis", error) from None


def lost(where: str) -> RowsLost:
    """Return the error of rows that a pointer names and that are not there."""
    return RowsLost(
        f"rows of the online features are gone from {where}; run materialize_features for the "
        "newest partition, and look who flushes or evicts keys"
    )


def unavailable(where: str, reason: str) -> Unavailable:
    """Return the error of a store that does not answer, or refuses."""
    return Unavailable(
        f"online features in {where}: {reason}; check that it runs, may be "
        "written and has memory left (maxmemory), then run it again"
    )


def join_row(event_ts: int, values: bytes) -> bytes:
    """Return a row as it is stored: event time (microseconds since 1970 UTC), packed values."""
    return _STAMP.pack(event_ts) + values


def split_row(packed: bytes) -> tuple[int, bytes]:
    """Return the event time and the packed values of a stored row.

    Raises:
        RowsLost: it is too short to be one.
    """
    try:
        return _STAMP.unpack_from(packed)[0], packed[_STAMP.size :]
    except struct.error as error:
        raise damaged("an online row", error) from None
