"""Packed online features: one SQLite row an entity, all features of a feature set in one blob.

The serving node reads only this, so it imports the standard library and msgspec alone. A feature
set's rows and its partition watermark are replaced in one transaction (WAL: readers never wait and
see the old rows or the new ones, and a killed writer leaves the old). An older partition never
replaces a newer one.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from include.errors import Conflict, Unavailable

Value = int | float | str | bool | None
OnlineRow = tuple[str, int, bytes]
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rows (feature_set TEXT NOT NULL, entity TEXT NOT NULL, event_ts "
    "INTEGER NOT NULL,"
    ' "values" BLOB NOT NULL, PRIMARY KEY (feature_set, entity)) WITHOUT ROWID',
    "CREATE TABLE IF NOT EXISTS sets (feature_set TEXT PRIMARY KEY, columns TEXT NOT NULL, "
    "partition TEXT NOT NULL, ttl INTEGER NOT NULL, written TEXT NOT NULL, inputs TEXT NOT NULL, "
    "digest TEXT NOT NULL) WITHOUT ROWID",
)
_WRITE_TIMEOUT, _READ_TIMEOUT = 30.0, 0.05
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Value]).decode


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
        """Return how far the newest row of each view lags behind the horizon, in microseconds;
        by view, where there is one.
        """
        if not self.views:
            return {"": max(0, horizon - event_ts)}
        times = zip(self.views, values[len(self.columns) :], strict=True)
        return {
            view.name: max(0, horizon - int(newest)) for view, newest in times if newest is not None
        }

    @property
    def ttls(self) -> dict[str, int]:
        """The ttl of each view in microseconds."""
        return {view.name: view.ttl for view in self.views} or {
            "": self.ttl // timedelta(microseconds=1)
        }


def pack(entity: object, event_ts: int, values: Sequence[Value]) -> OnlineRow:
    """Return the stored form of one row; `event_ts` is in microseconds since 1970 UTC, values
    stand in feature order.
    """
    return str(entity), event_ts, _encode(values)


def rows_digest(rows: Iterable[OnlineRow]) -> str:
    """Return the digest of packed rows, given in order of their entity."""
    state = hashlib.sha256()
    for entity, event_ts, values in rows:
        state.update(f"{len(entity)}:{entity}:{event_ts}:{len(values)}:".encode())
        state.update(values)
    return f"sha256:{state.hexdigest()}"


def publish(
    path: Path,
    what: OnlineSet,
    rows: Iterable[OnlineRow],
    *,
    check: Callable[[], None] | None = None,
) -> None:
    """Replace a feature set's rows and its watermark in one transaction; `check` may still refuse
    right before the commit.

    Raises:
        Conflict: a newer partition is online.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        closing(sqlite3.connect(path, timeout=_WRITE_TIMEOUT, isolation_level=None)) as con,
        _errors(path),
    ):
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("PRAGMA synchronous = NORMAL")
        con.execute("BEGIN IMMEDIATE")
        try:
            for statement in _SCHEMA:
                con.execute(statement)
            there = con.execute(
                "SELECT partition FROM sets WHERE feature_set = ?", (what.feature_set,)
            ).fetchone()
            if there is not None and there[0] > what.partition:
                raise Conflict(
                    f"features {what.feature_set} are online from partition {there[0]}; "
                    f"the older {what.partition} does not replace it"
                )
            con.execute("DELETE FROM rows WHERE feature_set = ?", (what.feature_set,))
            con.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?)", ((what.feature_set, *row) for row in rows)
            )
            con.execute(
                "INSERT OR REPLACE INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    what.feature_set,
                    json.dumps(
                        {"columns": what.columns, "views": what.views}
                        if what.views
                        else what.columns
                    ),
                    what.partition,
                    what.ttl // timedelta(microseconds=1),
                    what.written.isoformat(),
                    what.inputs,
                    what.digest,
                ),
            )
            if check is not None:
                check()
        except BaseException:
            con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")


class OnlineReader:
    """Reads packed rows; one a thread, kept open. Nothing online yet reads as nothing known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._con: sqlite3.Connection | None = None

    def get(self, feature_set: str, entity: object) -> tuple[int, list[Value]] | None:
        """Return the event time (microseconds since 1970 UTC) and the stored values of an entity,
        or None where it is unknown.

        Raises:
            Unavailable: the database does not answer within the short time-out.
        """
        found = self._one(
            'SELECT event_ts, "values" FROM rows WHERE feature_set = ? AND entity = ?',
            (feature_set, str(entity)),
        )
        return None if found is None else (found[0], _decode(found[1]))

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""
        found = self._one(
            "SELECT columns, partition, ttl, written, inputs, digest FROM sets "
            "WHERE feature_set = ?",
            (feature_set,),
        )
        if found is None:
            return None
        columns, partition, ttl, written, inputs, digest = found
        told = json.loads(columns)
        views = told["views"] if isinstance(told, dict) else []
        return OnlineSet(
            feature_set,
            tuple(told["columns"] if isinstance(told, dict) else told),
            partition,
            timedelta(microseconds=ttl),
            datetime.fromisoformat(written),
            inputs,
            digest,
            tuple(OnlineView(name, micros, tuple(names)) for name, micros, names in views),
        )

    def rows(self, feature_set: str) -> Iterator[OnlineRow]:
        """Yield all packed rows of a feature set in order of their entity, as of one moment."""
        con = self._open()
        if con is not None:
            with _errors(self.path):
                yield from con.execute(
                    'SELECT entity, event_ts, "values" FROM rows WHERE feature_set = ? '
                    "ORDER BY entity",
                    (feature_set,),
                )

    def count(self, feature_set: str) -> int:
        """Return how many entities are online."""
        found = self._one("SELECT count(*) FROM rows WHERE feature_set = ?", (feature_set,))
        return 0 if found is None else int(found[0])

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        if self._con is not None:
            self._con.close()
            self._con = None

    def _one(self, query: str, arguments: tuple[str, ...]) -> tuple[Any, ...] | None:
        con = self._open()
        if con is None:
            return None
        try:  # on the path of every request: no context manager here
            found: tuple[Any, ...] | None = con.execute(query, arguments).fetchone()
        except sqlite3.Error as error:
            raise _unavailable(self.path, error) from error
        return found

    def _open(self) -> sqlite3.Connection | None:
        if self._con is None:
            if not self.path.exists():
                return None
            with _errors(self.path):
                address = f"{self.path.resolve().as_uri()}?mode=ro"
                con = sqlite3.connect(
                    address,
                    uri=True,
                    timeout=_READ_TIMEOUT,
                    isolation_level=None,
                    check_same_thread=False,
                )
                if (
                    con.execute(
                        "SELECT count(*) FROM sqlite_master WHERE name IN ('rows', 'sets')"
                    ).fetchone()[0]
                    < 2
                ):
                    con.close()  # the first writer has not committed yet
                    return None
                self._con = con
        return self._con


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: sqlite3.Error) -> Unavailable:
    return Unavailable(
        f"online features {path}: {error}; check the disk and who holds the file, then run it again"
    )
