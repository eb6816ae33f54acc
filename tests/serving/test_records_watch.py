"""Whether the records may have changed: what counts as a move."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.serving import records_watch
from include.serving.records_watch import Watch


def test_it_moves_only_when_another_connection_commits(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    watch = Watch(f"sqlite:///{path}")
    assert watch.moved() is False
    with sqlite3.connect(path) as con:
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("CREATE TABLE t (x)")
    assert watch.moved() is True
    assert watch.moved() is False
    con.execute("INSERT INTO t VALUES (1)")
    assert watch.moved() is False
    con.commit()
    assert (watch.moved(), watch.moved()) == (True, False)
    con.close()
    path.unlink()
    with sqlite3.connect(path) as again:
        again.execute("CREATE TABLE t (x)")
    assert watch.moved() is True
    watch.close()


def test_a_damaged_database_is_always_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    path.write_bytes(b"no database" * 100)
    watch = Watch(f"sqlite:///{path}")
    assert [watch.moved() for _ in range(3)] == [True, True, True]


def test_it_makes_no_database(tmp_path: Path) -> None:
    Watch(f"sqlite:///{tmp_path / 'records.db'}").moved()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://postgres@127.0.0.1:5432/postgres", "sqlite://"]
)
def test_of_another_database_the_clock_decides(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(records_watch, "time", SimpleNamespace(monotonic=lambda: now))
    watch = Watch(url)
    assert (watch.moved(), watch.moved()) == (True, False)
    now += records_watch.REMOTE_SECONDS
    assert (watch.moved(), watch.moved()) == (True, False)


def test_it_is_closed_only_once_nobody_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that is cancelled leaves its question to a thread, and closes."""
    asked, closed_while_asked = threading.Event(), []

    class Slow(sqlite3.Connection):
        busy = False

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            self.busy = True
            asked.set()
            time.sleep(0.2)
            found = super().execute(*arguments)
            self.busy = False
            return found

        def close(self) -> None:
            closed_while_asked.append(self.busy)
            super().close()

    connect = sqlite3.connect
    connect(tmp_path / "records.db").execute("CREATE TABLE t (x)").connection.close()
    monkeypatch.setattr(
        records_watch.sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Slow)
    )
    watch = Watch(f"sqlite:///{tmp_path / 'records.db'}")
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(watch.moved()), daemon=True)
    thread.start()
    assert asked.wait(60)
    watch.close()
    thread.join(60)
    assert (answers, closed_while_asked) == ([True], [False])
