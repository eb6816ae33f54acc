"""Whether the records may have changed: what counts as a move."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

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
    monkeypatch.setattr(records_watch, "REMOTE_SECONDS", 0.05)
    watch = Watch(url)
    assert (watch.moved(), watch.moved()) == (True, False)
    time.sleep(0.06)
    assert watch.moved() is True
