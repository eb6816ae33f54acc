"""The connection to MLflow: tables made by one process at a time, errors that tell no password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from include.config.settings import ROOT, Settings
from include.errors import Unavailable
from include.models.mlflow_client import connected, only_one_process, public_address


def open_once(settings: Settings) -> None:
    with connected(settings):
        pass


def test_a_server_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Settings(home=tmp_path, mlflow_uri="http://user:hunter2@127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9") as refused:
        open_once(away)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_database_server_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path,
) -> None:
    away = Settings(home=tmp_path, mlflow_uri="postgresql://user:hunter2@127.0.0.1:9/mlflow")
    with pytest.raises(
        Unavailable, match=r"MLflow at postgresql\+psycopg://127\.0\.0\.1:9 failed"
    ) as refused:
        open_once(away)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.slow
def test_two_processes_may_make_the_tables_of_one_postgresql_database_at_once(
    tmp_path: Path, postgres_url: str
) -> None:
    code = (
        "from include.models.mlflow_client import connected\n"
        "from include.config.settings import settings\n"
        "import mlflow\nwith connected(settings()):\n    pass"
    )
    environment = {
        **os.environ,
        "EVERGREEN_MLFLOW_URI": postgres_url,
        "EVERGREEN_HOME": str(tmp_path),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0], ended


def test_a_database_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(Unavailable, match=r"mlflow\.db"):
        open_once(Settings(home=tmp_path))


def test_one_process_at_a_time_makes_the_tables_of_a_file(tmp_path: Path) -> None:
    database = tmp_path / "new" / "mlflow.db"
    with only_one_process(f"sqlite:///{database}"):
        other = FileLock(database.with_name(".mlflow.db.lock"))
        with pytest.raises(Timeout):
            other.acquire(timeout=0)
    with other.acquire(timeout=0):
        pass
    with only_one_process("http://127.0.0.1:9"):  # a server's own affair
        assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sqlite:////home/a/mlflow.db", "sqlite:////home/a/mlflow.db"),
        ("http://user:hunter2@host:5000", "http://host:5000"),
        ("postgresql+psycopg://user@host:5432/mlflow", "postgresql+psycopg://host:5432"),
    ],
)
def test_an_address_is_shown_without_whom_it_is_for(address: str, shown: str) -> None:
    assert public_address(address) == shown
