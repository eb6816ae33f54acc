"""Every way in which a start is refused names the thing and the remedy."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.errors import ConfigError, Unavailable
from include.installation import preflight, supervisor
from tests.builders.ports import free_port


def test_a_python_that_does_not_fit() -> None:
    preflight.check_python((3, 11))
    preflight.check_python((3, 13))
    with pytest.raises(ConfigError, match=r"Python 3\.10.*make install PYTHON="):
        preflight.check_python((3, 10))
    with pytest.raises(ConfigError, match=r"3\.14"):
        preflight.check_python((3, 14))


def test_no_space(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GB are free.*EVERGREEN_HOME"):
        preflight.check_space(tmp_path, need=10**18)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        preflight.check_home(tmp_path / "var")


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(ConfigError, match="EVERGREEN_HOME"):
        preflight.check_home(tmp_path / "var")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps({"layout": 0, "airflow": "3.3.2"}), "layout 0"),
        (json.dumps({"layout": preflight.LAYOUT, "airflow": "99.0.0"}), "Airflow 99"),
        ("{", "cannot be read"),
    ],
)
def test_a_home_of_another_version(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "VERSION").write_text(text)
    with pytest.raises(ConfigError, match=f"{reason}.*EVERGREEN_HOME"):
        preflight.check_version(tmp_path)


def test_a_home_of_this_version_needs_no_migration(tmp_path: Path) -> None:
    preflight.check_version(tmp_path)
    assert not preflight.is_migrated(Settings(home=tmp_path))
    preflight.stamp_version(tmp_path)
    assert not preflight.is_migrated(Settings(home=tmp_path)), "the database is not there"
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "airflow.db").touch()
    assert preflight.is_migrated(Settings(home=tmp_path))
    preflight.check_version(tmp_path)


def test_databases_of_another_version_are_copied_before_ours_changes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "airflow").mkdir()
    files = [tmp_path / "airflow" / "airflow.db", tmp_path / "mlflow.db"]
    for file in files:
        with closing(sqlite3.connect(file)) as con, con:
            con.execute("CREATE TABLE kept AS SELECT 7 AS number")
            con.execute("CREATE TABLE alembic_version AS SELECT 'a' AS version_num")
    preflight.copy_databases(tmp_path)
    preflight.stamp_version(tmp_path)
    preflight.copy_databases(tmp_path)
    assert not [*tmp_path.rglob("*before*")], "nothing is of another version"
    stamp = json.loads((tmp_path / "VERSION").read_text())
    (tmp_path / "VERSION").write_text(json.dumps({**stamp, "airflow": "3.0.1", "mlflow": "3.1.0"}))
    copies = [
        file.with_name(f"{file.name}.before-{version}")
        for file, version in zip(files, ["3.0.1", "3.1.0"], strict=True)
    ]

    def change(number: int, revision: str) -> None:
        for file in files:
            with closing(sqlite3.connect(file)) as con, con:
                con.execute("UPDATE kept SET number = ?", [number])
                con.execute("UPDATE alembic_version SET version_num = ?", [revision])

    def set_up(*_: object, **__: object) -> None:  # Airflow's own command
        assert all(copy.exists() for copy in copies), "a copy comes first"

    def killed(*_: object, **__: object) -> None:
        change(9, "b")
        raise KeyboardInterrupt

    change(6, "a")
    preflight.copy_databases(tmp_path)
    change(7, "a")  # the version before went on with it: it is copied anew
    monkeypatch.setattr(supervisor, "set_up", killed)
    with pytest.raises(KeyboardInterrupt):
        supervisor.migrate(Settings(home=tmp_path))
    monkeypatch.setattr(supervisor, "set_up", set_up)
    supervisor.migrate(Settings(home=tmp_path))  # what is half-way is no copy of before
    for copy in copies:
        with closing(sqlite3.connect(copy)) as con:
            assert con.execute("SELECT number FROM kept").fetchall() == [(7,)]
    assert preflight.is_migrated(Settings(home=tmp_path))


def test_a_taken_port_names_the_port_its_setting_and_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = Settings(
            home=tmp_path, airflow_port=free_port(), mlflow_port=port, node_port=free_port()
        )
        with pytest.raises(
            Unavailable, match=rf"port {port} for MLflow.*EVERGREEN_MLFLOW_PORT={port + 1}"
        ):
            preflight.check_ports(settings)
    preflight.check_ports(settings)


def test_two_settings_with_one_port(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(
        ConfigError, match=f"EVERGREEN_MLFLOW_PORT and EVERGREEN_AIRFLOW_PORT are both {port}"
    ):
        preflight.check_ports(Settings(home=tmp_path, airflow_port=port, mlflow_port=port))


def test_a_store_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    preflight.check_store(Settings(home=tmp_path, store_uri=str(tmp_path / "store")))
    assert list((tmp_path / "store").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    wrong = Settings(home=tmp_path, store_uri=str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=rf"{tmp_path}/file cannot be written.*STORE_URI"):
        preflight.check_store(wrong)
    preflight.check_store(Settings(home=tmp_path, store_uri="s3://asked-by-whoever-uses-it"))
