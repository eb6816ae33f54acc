"""Whether the records may have changed since they were last read, without a query to a table."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

from sqlalchemy import make_url

REMOTE_SECONDS = 1.0  # between two looks at another database than SQLite


class Watch:
    """Tells whether the records may have changed since it was last asked.

    Of SQLite this takes microseconds and no lock: `PRAGMA data_version` moves when another
    connection commits. The file's inode tells that the database was replaced, as a reset does.
    Threads may ask and close it at once.
    """

    def __init__(self, url: str) -> None:
        address = make_url(url)
        local = address.get_backend_name() == "sqlite" and address.database
        self._path = Path(str(address.database)) if local else None
        self._next = 0.0
        self._con: sqlite3.Connection | None = None
        self._seen: tuple[int, int] | None = None
        # The thread that asks goes on when the task that waits for it is cancelled: a connection
        # that is closed while it is asked kills the process, or hangs it.
        self._lock = threading.RLock()

    def moved(self) -> bool:
        """Return False only if nothing can have changed; elsewhere than in SQLite, by the clock."""
        if self._path is None:
            due = time.monotonic() >= self._next
            self._next = time.monotonic() + REMOTE_SECONDS if due else self._next
            return due
        with self._lock:
            return self._moved(self._path)

    def _moved(self, path: Path) -> bool:
        try:
            inode = path.stat().st_ino
            if self._con is None or (self._seen is not None and self._seen[0] != inode):
                self.close()
                # Read-only, so that a missing database is not made; asked from changing threads,
                # one after the other.
                self._con = sqlite3.connect(
                    f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
                )
            seen = (inode, int(self._con.execute("PRAGMA data_version").fetchone()[0]))
        except (OSError, sqlite3.Error):
            self.close()
            return path.exists()  # damaged or locked: reading it tells more
        changed, self._seen = seen != self._seen, seen
        return changed

    def close(self) -> None:
        """Close the connection, once nobody asks it any more."""
        with self._lock:
            if self._con is not None:
                self._con.close()
            self._con, self._seen = None, None
