"""Transactions on SQLite and PostgreSQL: what is retried, and what is said of what fails."""

from __future__ import annotations

import os
import sqlite3
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenacity
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from include.errors import ConfigError, Unavailable
from include.records import audit
from include.records.database import Database, _use_wal
from include.records.records import Records
from tests.records.builders import (
    entry,
    raise_to,
)


def test_a_fork_gets_connections_of_its_own(records: Records) -> None:
    raise_to(records, "backfill", "data")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(5):
                records.audit.append(entry("child", subject=str(number)))
            code = 0 if len(records.audit.entries(action="child")) == 5 else 2
        finally:
            os._exit(code)
    for number in range(5):
        records.audit.append(entry("parent", subject=str(number)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [len(records.audit.entries(action=who)) for who in ("parent", "child")] == [5, 5]
    assert records.audit.verify() is None


def test_a_database_without_tables_says_what_makes_them(records_url: str) -> None:
    records = Records.open(records_url)
    for act in (
        lambda: records.partitions.get("loans", "2026-03-01"),
        lambda: records.audit.append(entry()),
    ):
        with pytest.raises(ConfigError, match="`make run` creates them"):
            act()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://h:no/x",
    ],
)
def test_a_wrong_url_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(ConfigError, match="EVERGREEN_RECORDS_URL"):
        Records.open(url)


def test_no_error_tells_the_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said, form = [], "postgresql+psycopg://nobody:{0}@{2}/x?sslpassword={1}"
    secrets = ("s3cr%2Ft", "s3cond")  # apart from the calls: a traceback quotes those lines
    for address in ("127.0.0.1:9", "127.0.0.1:5432", "no-such-host.invalid"):
        records = Records.open(form.format(*secrets, address), patience=0.2)
        with pytest.raises(Unavailable, match="EVERGREEN_RECORDS_URL") as caught:
            records.audit.append(entry())
        said += ["".join(traceback.format_exception(caught.value)), repr(records)]
    with pytest.raises(ConfigError) as wrong:
        Records.open(form.format(*secrets, "host:no-port"))
    said += ["".join(traceback.format_exception(wrong.value)), caplog.text]
    assert not [text for text in said if "s3cr" in text or "s3cond" in text]
    assert "nobody:***@127.0.0.1:9/x" in said[0]


def test_sqlite_waits_for_a_writer_and_never_blocks_a_reader(tmp_path: Path) -> None:
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()
    with records.database.engine.connect() as connection:
        settings = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        ]
    assert settings == ["wal", 1, 30_000]
    finished: list[float] = []
    with records.transaction() as session:
        audit.append(session, entry())
        session.execute(text("UPDATE audit_head SET hash = hash"))
        writer = threading.Thread(
            target=lambda: finished.append(raise_to(records, "live", "data") and 1.0)
        )
        writer.start()
        assert records.audit.entries() == []  # a reader goes on, and sees the old state
        writer.join(0.3)
        assert finished == []
    writer.join(60)
    assert finished == [1.0]
    assert [row.action for row in records.audit.entries()] == ["judged", "partition.raised"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file/deep: cannot be made for the records"):
        Records.open(f"sqlite:///{tmp_path}/file/deep/records.db")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.db").mkdir()
    with pytest.raises(Unavailable, match=r"records\.db does not answer \(unable to open"):
        Records.open(f"sqlite:///{tmp_path}/records.db").migrate()


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.migrate()

    def fill(session: Session) -> None:
        pages = session.execute(text("PRAGMA page_count")).scalar()
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
        audit.append(session, entry(details={"x": "x" * 100_000}))

    with pytest.raises(Unavailable, match=r"no space is left for .*records\.db"):
        records.database.write(fill)
    assert (records.audit.entries(), records.audit.verify(), records.audit.head()[0]) == (
        [],
        None,
        0,
    )


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(
        b"no database, but long enough to look like a header" * 100
    )
    with pytest.raises(Unavailable, match=r"records\.db is damaged"):
        Records.open(f"sqlite:///{tmp_path / 'records.db'}").migrate()


def test_connections_that_the_server_ends_are_replaced(postgres_url: str) -> None:
    records = Records.open(postgres_url)
    records.migrate()
    ended: list[int] = []
    kill = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = "
        "current_database() AND pid <> :mine"
    )

    def end_others() -> None:
        other = Records.open(postgres_url)
        with other.database.engine.connect() as connection:
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            ended.append(connection.execute(kill, {"mine": mine}).scalar() or 0)
        other.close()

    def work(session: Session) -> None:
        session.execute(text("SELECT 1"))
        if len(ended) < 2:
            end_others()
        audit.append(session, entry("kept"))

    end_others()  # while idle in the pool
    records.audit.append(entry("idle"))
    records.database.write(work)  # in the middle of a transaction
    assert len(ended) == 2
    assert ended[1] >= 1
    assert [row.action for row in records.audit.entries()] == ["idle", "kept"]
    assert records.audit.verify() is None


def test_a_database_file_that_is_put_anew_is_not_written_behind_the_scenes(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/state/records.db", tmp_path / "state"
    records = Records.open(url)
    records.migrate()
    records.audit.append(entry("old"))
    folder.rename(tmp_path / "kept")
    with pytest.raises(Unavailable, match="unable to open"):
        records.audit.entries()
    folder.mkdir()
    Records.open(url).migrate()
    records.audit.append(entry("new"))
    assert [row.action for row in Records.open(url).audit.entries()] == ["new"]


def test_verifying_while_others_append_sees_one_snapshot(records: Records) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            records.audit.append(entry("more"))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert [records.audit.verify() for _ in range(25)] == [None] * 25
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def broken_connection() -> DBAPIError:
    """Return the error of a connection that was lost."""
    return DBAPIError("SELECT 1", {}, ConnectionError("gone"), connection_invalidated=True)


def test_a_lost_connection_is_retried_and_a_mistake_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, tries = Database(f"sqlite:///{tmp_path / 'records.db'}", patience=60), []

    def flaky(session: Session) -> int:
        tries.append("flaky")
        if len(tries) < 3:
            raise broken_connection()
        return len(tries)

    assert database.read(flaky) == 3
    assert caplog.text.count("DBAPIError; trying again") == 2

    def mistaken(session: Session) -> None:
        tries.append("mistaken")
        session.execute(text("SELECT nonsense"))

    with pytest.raises(OperationalError, match="no such column: nonsense"):
        database.write(mistaken)
    assert tries.count("mistaken") == 1


def test_a_connection_that_stays_lost_is_given_up_before_the_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, tries = Database(f"sqlite:///{tmp_path / 'records.db'}", patience=2.0), []
    now = [0.0]  # only pauses take time
    monkeypatch.setattr(tenacity, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(
        database._retrying, "sleep", lambda seconds: now.append(now.pop() + seconds)
    )

    def broken(session: Session) -> None:
        tries.append(now[0])
        raise broken_connection()

    with pytest.raises(Unavailable, match="does not answer"):
        database.write(broken)
    assert 2 <= len(tries) <= 9  # pauses of 0.05, 0.1, 0.2 s and so on, half of each random
    assert tries[-1] <= 2.0


def test_the_callers_transaction_is_not_retried(tmp_path: Path) -> None:
    database, tries = Database(f"sqlite:///{tmp_path / 'records.db'}"), []

    def broken(session: Session) -> None:
        tries.append(1)
        raise broken_connection()

    with pytest.raises(Unavailable), database.transaction() as session:
        database.write(broken, session)
    assert tries == [1]


def test_a_read_inside_a_write_is_retried_for_itself(tmp_path: Path) -> None:
    database, tries = Database(f"sqlite:///{tmp_path / 'records.db'}", patience=60), []

    def flaky(session: Session) -> str:
        tries.append("read")
        if len(tries) < 3:
            raise broken_connection()
        return "answer"

    assert database.write(lambda session: database.read(flaky)) == "answer"
    assert len(tries) == 3


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path) -> None:
    """SQLite stays in another mode there without any error, and waiting would never end."""
    connection = sqlite3.connect(f"file:{tmp_path}/records.db?vfs=unix-dotfile", uri=True)
    with pytest.raises(ConfigError, match=r"stays in 'delete'.*local disk"):
        _use_wal(connection)
    connection.close()


def test_two_processes_that_switch_to_wal_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN EXCLUSIVE")
    connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
    switch = threading.Thread(target=_use_wal, args=(connection,))
    switch.start()
    switch.join(0.3)
    assert switch.is_alive(), "it waits for the lock"
    other.execute("COMMIT")
    switch.join(60)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    other.close()
    connection.close()
