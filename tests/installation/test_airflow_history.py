"""Airflow's own database loses what is older than its days, by Airflow's own command."""

from __future__ import annotations

import os
import sqlite3
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
