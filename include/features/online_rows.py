"""The rows of a feature set as they are online: their form, their description, their digest.

A row is an entity, an event time and all its values in one blob, whichever store keeps it. The
serving node reads them, so this imports the standard library and msgspec alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

import msgspec

from include.errors import Unavailable

Value = int | float | str | bool | None
OnlineRow = tuple[str, int, bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Value]).decode


# What reading a description comes to that is damaged; recursion: brackets without end.
NO_DESCRIPTION = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class RowsLost(Unavailable):
    """Rows that were published are gone, or damaged: publishing them again is the remedy."""


def damaged(what: str, error: object) -> RowsLost:
    """Return the error of something online that is there and cannot be read."""
    return RowsLost(
        f"{what} cannot be read ({error}); run materialize_features for the newest partition"
    )


def unpack(values: bytes) -> list[Value]:
    """Return the values of a packed row.

    Raises:
        RowsLost: they are damaged.
    """
    try:
        return _decode(values)
    except (ValueError, TypeError) as error:  # bytes that are no MessagePack, or no bytes at all
        raise damaged("an online row", error) from None


class OnlineView(NamedTuple):
    """The part of a row that one view gave: its columns, and its ttl in microseconds."""

    name: str
    ttl: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnlineSet:
    """What is online of a feature set. A row is stale once its event time + `ttl` has passed.

    `inputs` names what the rows were made of, `digest` is that of the rows. Behind its values a row
    has, for each of `views`, the event time of that view's newest row (null: none), since each view
    expires by itself. Rows of before had no views.
    """

    feature_set: str
    columns: tuple[str, ...]
    partition: str
    ttl: timedelta
    written: datetime
    inputs: str
    digest: str
    views: tuple[OnlineView, ...] = ()

    def ages(self, event_ts: int, values: Sequence[Value], horizon: int) -> dict[str, int]:
        """Return by view how far its newest row lags behind the horizon, in microseconds.

        A view without a row is left out.

        Raises:
            RowsLost: the row has not the form that the set's rows have.
        """
        try:
            if not self.views:
                # Of the times that a later version wrote behind them nothing is known here.
                if len(values) < len(self.columns):
                    raise ValueError(f"{len(values)} of {len(self.columns)} values")
                return {"": max(0, horizon - event_ts)}
            times = zip(self.views, values[len(self.columns) :], strict=True)
            return {
                view.name: max(0, horizon - int(newest))
                for view, newest in times
                if newest is not None
            }
        except (ValueError, TypeError, OverflowError) as error:
            raise damaged(f"an online row of feature set {self.feature_set}", error) from None

    @property
    def ttls(self) -> dict[str, int]:
        """The ttl of each view in microseconds."""
        return {view.name: view.ttl for view in self.views} or {
            "": self.ttl // timedelta(microseconds=1)
        }


def pack(entity: object, event_ts: int, values: Sequence[Value]) -> OnlineRow:
    """Return the stored form of one row.

    `event_ts` is in microseconds since 1970 UTC; values stand in feature order.
    """
    return str(entity), event_ts, _encode(values)


class RowsDigest:
    """The digest of packed rows, of which some are given at a time, in order of their entity.

    Of each its bytes are `LENGTH:ENTITY:EVENT_TS:LENGTH:VALUES`.
    """

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def update(self, rows: bytes | memoryview) -> None:
        """Add the bytes of some rows."""
        self._state.update(rows)

    def hex(self) -> str:
        """Return the digest of all rows so far."""
        return f"sha256:{self._state.hexdigest()}"


def rows_digest(rows: Iterable[OnlineRow]) -> str:
    """Return the digest of packed rows, given in order of their entity."""
    digest, left = RowsDigest(), iter(rows)
    # Many at a time: to add to a hash takes as long as to make the bytes of a row.
    while some := list(islice(left, 1_000)):
        parts: list[bytes] = []
        for entity, event_ts, values in some:
            parts.append(f"{len(entity)}:{entity}:{event_ts}:{len(values)}:".encode())
            parts.append(values)
        digest.update(b"".join(parts))
    return digest.hex()


def layout_text(described: OnlineSet) -> str:
    """Return columns and views as they are stored; `layout` reads them."""
    if not described.views:
        return json.dumps(described.columns)
    return json.dumps({"columns": described.columns, "views": described.views})


def layout(text: str) -> tuple[tuple[str, ...], tuple[OnlineView, ...]]:
    """Read columns and views; rows of before had a list of columns alone."""
    plain = json.loads(text)
    if not isinstance(plain, dict):
        return tuple(plain), ()
    views = (OnlineView(name, ttl, tuple(columns)) for name, ttl, columns in plain["views"])
    return tuple(plain["columns"]), tuple(views)
