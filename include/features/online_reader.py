"""Read online features from SQLite.

The serving node reads by this, so it imports the standard library and msgspec alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from include.errors import Unavailable
from include.features.online_rows import (
    NO_DESCRIPTION,
    OnlineRow,
    OnlineSet,
    Value,
    damaged,
    layout,
    unpack,
)

# Seconds. A request cannot wait for a lock, and in WAL mode no reader has to.
_READ_TIMEOUT = 0.05


class OnlineReader:
    """Reads packed rows; one a thread, kept open. Nothing online yet reads as nothing known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._con: sqlite3.Connection | None = None
        self._version: int | None = None  # SQLite's, of what this connection held last
        self._state: object = None

    def get(self, feature_set: str, entity: object) -> tuple[int, list[Value]] | None:
        """Return the event time and the stored values of an entity; None: it is unknown.

        The time is in microseconds since 1970 UTC.

        Raises:
            Unavailable: the database does not answer within the short time-out, or the row is
                damaged.
        """
        row = self._one_row(
            'SELECT event_ts, "values" FROM rows WHERE feature_set = ? AND entity = ?',
            (feature_set, str(entity)),
        )
        return None if row is None else (row[0], unpack(row[1]))

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None.

        Raises:
            Unavailable: the database does not answer, or the description is damaged.
        """
        row = self._one_row(
            "SELECT columns, partition, ttl, written, inputs, digest FROM sets "
            "WHERE feature_set = ?",
            (feature_set,),
        )
        if row is None:
            return None
        stored, partition, ttl, written, inputs, digest = row
        try:
            columns, views = layout(stored)
            return OnlineSet(
                feature_set,
                columns,
                partition,
                timedelta(microseconds=ttl),
                datetime.fromisoformat(written),
                inputs,
                digest,
                views,
            )
        except NO_DESCRIPTION as error:
            where = f"what is online of feature set {feature_set} in {self.path}"
            raise damaged(where, error) from None

    def hold(self) -> object:
        """Read one state of the rows from now on, until `release`; return that state.

        It is the object of before as long as nobody has written to the file. Who reads often saves
        the locks of each read. While a state is held, what is written stays in the log, so it must
        be short.

        Raises:
            Unavailable: the database does not answer.
        """
        con = self._open()
        if con is None:
            return None
        if not con.in_transaction:
            try:
                con.execute("BEGIN")
                # It begins to read, so it is the version of what is read next, too.
                (version,) = con.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                self.close()  # with a transaction that may have begun
                raise store_away(self.path, error) from error
            if version != self._version:
                self._version, self._state = version, object()
        return self._state

    def release(self) -> None:
        """Read what is newest again."""
        if self._con is not None and self._con.in_transaction:
            try:
                self._con.execute("COMMIT")
            except sqlite3.Error:
                self.close()  # ends it, whatever it was

    def rows(self, feature_set: str) -> Iterator[OnlineRow]:
        """Yield all packed rows of a feature set in order of their entity, as of one moment."""
        con = self._open()
        if con is not None:
            with store_errors(self.path):
                yield from con.execute(
                    'SELECT entity, event_ts, "values" FROM rows WHERE feature_set = ? '
                    "ORDER BY entity",
                    (feature_set,),
                )

    def count(self, feature_set: str, *, since: int | None = None) -> int:
        """Return how many entities are online; with `since`, whose row is not older than that.

        It is compared with the rows' event time, in microseconds since 1970 UTC.
        """
        query = "SELECT count(*) FROM rows WHERE feature_set = ?"
        if since is None:
            row = self._one_row(query, (feature_set,))
        else:
            row = self._one_row(f"{query} AND event_ts >= ?", (feature_set, since))
        return 0 if row is None else int(row[0])

    def shared(self, of: str, feature_set: str, *, since: tuple[int, int]) -> tuple[int, int]:
        """Return how many entities one feature set has, and how many of them another one too.

        Rows count whose event time is not before `since`, that of the one and that of the other.
        """
        row = self._one_row(
            "SELECT count(*), count(other.entity) FROM rows AS mine LEFT JOIN rows AS other "
            "ON other.feature_set = ? AND other.entity = mine.entity AND other.event_ts >= ? "
            "WHERE mine.feature_set = ? AND mine.event_ts >= ?",
            (feature_set, since[1], of, since[0]),
        )
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def sample(self, feature_set: str, count: int, *, since: int) -> list[list[Value]]:
        """Return the stored values of the first entities by their key, as `count` counts them."""
        con = self._open()
        if con is None:
            return []
        with store_errors(self.path):
            rows = con.execute(
                'SELECT "values" FROM rows WHERE feature_set = ? AND event_ts >= ? '
                "ORDER BY entity LIMIT ?",
                (feature_set, since, count),
            ).fetchall()
        return [unpack(values) for (values,) in rows]

    def is_readable(self) -> bool:
        """Tell whether there are online features, and what is online of each set can be read."""
        try:
            con = self._open()
            if con is None:
                return False
            with store_errors(self.path):
                names = [name for (name,) in con.execute("SELECT feature_set FROM sets")]
            return all(self.describe(name) is not None for name in names)
        except Unavailable:
            return False

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        if self._con is not None:
            self._con.close()
            self._con, self._version = None, None  # each connection counts for itself

    def _one_row(self, query: str, arguments: tuple[object, ...]) -> tuple[Any, ...] | None:
        con = self._open()
        if con is None:
            return None
        try:  # on the path of every request: no context manager here
            row: tuple[Any, ...] | None = con.execute(query, arguments).fetchone()
        except sqlite3.Error as error:
            raise store_away(self.path, error) from error
        return row

    def _open(self) -> sqlite3.Connection | None:
        """Return the kept connection; None: nothing was ever written."""
        if self._con is None:
            if not self.path.exists():
                return None
            with store_errors(self.path):
                address = f"{self.path.resolve().as_uri()}?mode=ro"
                con = sqlite3.connect(
                    address,
                    uri=True,
                    timeout=_READ_TIMEOUT,
                    isolation_level=None,
                    check_same_thread=False,
                )
                (tables,) = con.execute(
                    "SELECT count(*) FROM sqlite_master WHERE name IN ('rows', 'sets')"
                ).fetchone()
                if tables < 2:
                    con.close()  # the first writer has not committed yet
                    return None
                self._con = con
        return self._con


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `Unavailable`, which names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_away(path, error) from error


def store_away(path: Path, error: sqlite3.Error) -> Unavailable:
    """Return what SQLite's error is told as."""
    return Unavailable(
        f"online features {path}: {error}; check the disk and who holds the file, then run it again"
    )
