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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from include.errors import Conflict, Unavailable


class RowsLost(Unavailable):
    """Rows that were published are gone: publishing them again is the remedy."""


Value = int | float | str | bool | None
OnlineRow = tuple[str, int, bytes]
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS rows (
        feature_set TEXT NOT NULL,
        entity TEXT NOT NULL,
        event_ts INTEGER NOT NULL,
        "values" BLOB NOT NULL,
        PRIMARY KEY (feature_set, entity)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS sets (
        feature_set TEXT PRIMARY KEY,
        columns TEXT NOT NULL,
        partition TEXT NOT NULL,
        ttl INTEGER NOT NULL,
        written TEXT NOT NULL,
        inputs TEXT NOT NULL,
        digest TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)
# Seconds. A request cannot wait for a lock, and in WAL mode no reader has to.
_WRITE_TIMEOUT, _READ_TIMEOUT = 30.0, 0.05
_MOVE_MILLISECONDS = 1000  # a node holds a state for a hundredth of that
_encode = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(list[Value]).decode  # the values of a packed row


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


def publish(
    path: Path,
    described: OnlineSet,
    rows: Iterable[OnlineRow],
    *,
    check: Callable[[], None] | None = None,
    digest: Callable[[], str] | None = None,
) -> None:
    """Replace a feature set's rows and its watermark in one transaction.

    `check` may still refuse right before the commit. `digest`, which is asked once all rows are
    taken, gives their digest in the place of the described one.

    Raises:
        Conflict: a newer partition is online.
        Unavailable: the database cannot be written.
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
            version = described.feature_set
            present = con.execute(
                "SELECT partition FROM sets WHERE feature_set = ?", (version,)
            ).fetchone()
            if present is not None and present[0] > described.partition:
                raise Conflict(
                    f"features {version} are online from partition {present[0]}; "
                    f"the older {described.partition} does not replace it"
                )
            con.execute("DELETE FROM rows WHERE feature_set = ?", (version,))
            con.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?)", ((version, *row) for row in rows)
            )
            con.execute(
                "INSERT OR REPLACE INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    version,
                    layout_text(described),
                    described.partition,
                    described.ttl // timedelta(microseconds=1),
                    described.written.isoformat(),
                    described.inputs,
                    described.digest if digest is None else digest(),
                ),
            )
            if check is not None:
                check()
        except BaseException:
            con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")
        # A node that is asked all the time may hold an old state just when SQLite would move the
        # log into the file, and with each publication the log would grow. Here it is waited for, a
        # little: the rows are committed, and nothing of this is an error any more.
        with suppress(sqlite3.Error):
            con.execute(f"PRAGMA busy_timeout = {_MOVE_MILLISECONDS}")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_unneeded(path: Path, needed: Collection[str], *, before: datetime) -> list[str]:
    """Remove the rows of feature sets that are not needed and were written before a moment.

    Returns their versions. `before` is aware.

    Raises:
        Unavailable: the database cannot be written.
    """
    if not path.exists():
        return []
    with (
        closing(sqlite3.connect(path, timeout=_WRITE_TIMEOUT, isolation_level=None)) as con,
        _errors(path),
    ):
        con.execute("BEGIN IMMEDIATE")
        try:
            written = con.execute("SELECT feature_set, written FROM sets").fetchall()
            gone = sorted(
                name
                for name, at in written
                if name not in needed and datetime.fromisoformat(at) < before
            )
            for name in gone:
                con.execute("DELETE FROM rows WHERE feature_set = ?", (name,))
                con.execute("DELETE FROM sets WHERE feature_set = ?", (name,))
        except BaseException:
            con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")
    return gone


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
            Unavailable: the database does not answer within the short time-out.
        """
        row = self._one_row(
            'SELECT event_ts, "values" FROM rows WHERE feature_set = ? AND entity = ?',
            (feature_set, str(entity)),
        )
        return None if row is None else (row[0], unpack(row[1]))

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""
        row = self._one_row(
            "SELECT columns, partition, ttl, written, inputs, digest FROM sets "
            "WHERE feature_set = ?",
            (feature_set,),
        )
        if row is None:
            return None
        stored, partition, ttl, written, inputs, digest = row
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
                raise _unavailable(self.path, error) from error
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
            with _errors(self.path):
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
        with _errors(self.path):
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
            with _errors(self.path):
                names = [name for (name,) in con.execute("SELECT feature_set FROM sets")]
            return all(self.describe(name) is not None for name in names)
        except (Unavailable, ValueError, TypeError):
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
            raise _unavailable(self.path, error) from error
        return row

    def _open(self) -> sqlite3.Connection | None:
        """Return the kept connection; None: nothing was ever written."""
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
                (tables,) = con.execute(
                    "SELECT count(*) FROM sqlite_master WHERE name IN ('rows', 'sets')"
                ).fetchone()
                if tables < 2:
                    con.close()  # the first writer has not committed yet
                    return None
                self._con = con
        return self._con


class SqliteStore(OnlineReader):
    """The online features of one use case in a file of its own; see `online_stores.OnlineStore`."""

    @property
    def where(self) -> str:
        """The place, for messages."""
        return str(self.path)

    def publish(
        self,
        described: OnlineSet,
        rows: Iterable[OnlineRow],
        *,
        check: Callable[[], None] | None = None,
        digest: Callable[[], str] | None = None,
    ) -> None:
        """Replace a feature set's rows and its watermark at once."""
        publish(self.path, described, rows, check=check, digest=digest)

    def remove_unneeded(self, needed: Collection[str], *, before: datetime) -> list[str]:
        """Remove the rows of feature sets that are not needed; return their versions."""
        return remove_unneeded(self.path, needed, before=before)

    def remove(self) -> int:
        """Remove the file; return how many feature sets it had, 0 where it cannot be read.

        Raises:
            OSError: it cannot be deleted.
        """
        try:
            row = self._one_row("SELECT count(*) FROM sets", ())
        except Unavailable:  # a damaged one goes as well
            row = None
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return 0 if row is None else int(row[0])


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


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `Unavailable`, which names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: sqlite3.Error) -> Unavailable:
    return Unavailable(
        f"online features {path}: {error}; check the disk and who holds the file, then run it again"
    )
