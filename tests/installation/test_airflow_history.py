"""Airflow's own database loses what is older than its days, by Airflow's own command."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import Busy, Unavailable
from include.installation import airflow_history
from include.installation.airflow_history import ACTION, EVERYWHERE, trim
from include.installation.supervisor import migrate
from include.records.records import Records

NOW = utc_now()


def events(settings: Settings) -> list[str]:
    with closing(sqlite3.connect(settings.home / "airflow" / "airflow.db")) as database:
        return [row[0] for row in database.execute("SELECT event FROM log ORDER BY event")]


@pytest.mark.slow
def test_rows_older_than_its_days_go_told_before_and_once_a_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, airflow_days=30)
    migrate(settings)
    records = Records.open(settings.records_address)
    with closing(sqlite3.connect(tmp_path / "airflow" / "airflow.db")) as database, database:
        for name, days in (("old", 31), ("older", 400), ("young", 29)):
            moment = (NOW - timedelta(days=days)).isoformat(" ").removesuffix("+00:00")
            database.execute("INSERT INTO log (dttm, event) VALUES (?, ?)", (moment, name))
    assert trim(settings, records, at=NOW, actor="t", nightly=True) == {}, "it is new here"
    long_ago = (NOW - timedelta(days=31)).timestamp()
    os.utime(tmp_path / "secrets" / "airflow_fernet", (long_ago, long_ago))
    # A task's environment, in which Airflow forbids its database.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    assert trim(settings, records, at=NOW, actor="test", nightly=True) == {"log": 2}
    assert {"old", "older", "young"}.intersection(events(settings)) == {"young"}
    assert trim(settings, records, at=NOW + timedelta(hours=1), actor="t", nightly=True) == {}
    (entry,) = records.audit.entries(EVERYWHERE, action=ACTION)
    assert entry.details == {"before": (NOW - timedelta(days=30)).isoformat()}
    assert entry.actor == "test"
    with closing(sqlite3.connect(tmp_path / "airflow" / "airflow.db")) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
    assert not [name for name in tables if name.startswith("_airflow_deleted")]


def test_what_a_killed_run_held_is_dropped_and_a_persons_archive_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    (tmp_path / "airflow").mkdir()
    made = [NOW + timedelta(seconds=5), NOW - timedelta(hours=2), NOW + timedelta(hours=2)]
    names = [f"_airflow_deleted__log__{moment:%Y%m%d%H%M%S}__b1" for moment in made]
    with closing(sqlite3.connect(tmp_path / "airflow" / "airflow.db")) as database:
        for name in (*names, "log"):
            database.execute(f"CREATE TABLE {name} (id)")
    monkeypatch.setattr(airflow_history.processes, "python_module", lambda *_: ["true"])

    def tables() -> set[str]:
        with closing(sqlite3.connect(tmp_path / "airflow" / "airflow.db")) as database:
            return {row[0] for row in database.execute("SELECT name FROM sqlite_master")}

    trim(settings, records, at=NOW, actor="test")
    assert tables() == {*names, "log"}, "no run of ours is on record before"
    trim(settings, records, at=NOW + timedelta(days=1), actor="test")
    assert tables() == {*names[1:], "log"}


def test_a_command_that_fails_says_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    records = Records.open(settings.records_address)
    records.migrate()
    assert trim(settings, records, at=NOW, actor="test") == {}, "there is no Airflow here"
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "airflow.db").touch()
    command = ["/bin/sh", "-c", "echo Checking; echo it broke >&2; exit 3"]
    monkeypatch.setattr(airflow_history.processes, "python_module", lambda *_: command)
    with pytest.raises(Unavailable, match="it broke"):
        trim(settings, records, at=NOW, actor="test")
    claim = {"owner": "other", "attempt": 1, "ttl": 30}
    with (
        records.leases.claim(EVERYWHERE, "trim_airflow", "all", **claim),
        pytest.raises(Busy, match="other"),
    ):
        trim(settings, records, at=NOW, actor="test")


@pytest.mark.slow
def test_a_database_in_postgresql_is_trimmed_where_this_process_may_reach_it(
    tmp_path: Path, postgres_url: str
) -> None:
    import psycopg

    settings = Settings(home=tmp_path, airflow_days=30, airflow_database_url=postgres_url)
    migrate(settings)
    records = Records.open(settings.records_address)
    address = postgres_url.replace("+psycopg", "")
    moment = NOW - timedelta(minutes=1)
    left = f"_airflow_deleted__log__{moment:%Y%m%d%H%M%S}"
    with psycopg.connect(address, autocommit=True) as database:
        for name, days in (("old", 31), ("young", 29)):
            database.execute(
                "INSERT INTO log (dttm, event) VALUES (%s, %s)",
                (NOW - timedelta(days=days), name),
            )
        database.execute(f"CREATE TABLE {left} (id int)")
    on_a_worker = Settings(home=tmp_path / "worker", airflow_days=30)
    assert trim(on_a_worker, records, at=NOW, actor="test") == {}
    assert trim(settings, records, at=moment, actor="test") == {"log": 1}
    trim(settings, records, at=NOW, actor="test")
    with psycopg.connect(address) as database:
        kept = {event for (event,) in database.execute("SELECT event FROM log").fetchall()}
        tables = database.execute("SELECT 1 FROM pg_tables WHERE tablename = %s", (left,))
        assert tables.fetchone() is None, "what a killed run held is dropped"
    assert {"old", "young"} & kept == {"young"}


def test_logs_that_machines_share_are_bounded_every_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "shared" / "dag_id=a"
    logs.mkdir(parents=True)
    for name, age in (("old.log", 7200), ("older.log", 7300), ("young.log", 0)):
        (logs / name).write_bytes(b"x" * 600_000)
        os.utime(logs / name, (time.time() - age, time.time() - age))
    settings = Settings(home=tmp_path / "home", task_logs=logs.parent, task_log_megabytes=1.3)
    Records.open(settings.records_address).migrate()
    monkeypatch.setattr(airflow_history, "current_settings", lambda: settings)
    assert airflow_history.trim_tonight(actor="test") == {}
    assert {path.name for path in logs.iterdir()} == {"old.log", "young.log"}
