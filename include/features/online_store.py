"""Online features in SQLite: one row an entity, all features of a feature set in one blob.

A feature set's rows and its partition watermark are replaced in one transaction (WAL: readers never
wait and see the old rows or the new ones, and a killed writer leaves the old). An older partition
never replaces a newer one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path

from include.errors import Conflict, Unavailable
from include.features.online_reader import OnlineReader, store_errors
from include.features.online_rows import (
    OnlineRow,
    OnlineSet,
    layout_text,
)

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
_WRITE_TIMEOUT = 30.0  # seconds
_MOVE_MILLISECONDS = 1000  # a node holds a state for a hundredth of that


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
        store_errors(path),
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
        store_errors(path),
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
