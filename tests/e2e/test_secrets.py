"""Fault 72 after a whole chain in Airflow: no secret of the installation in a log, an XCom, a
database, a report or `ps`.
"""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.builders.scanning import TOKEN, Scanner, databases, secrets_of, values
from tests.e2e.conftest import session_of
from tests.e2e.installations import Embedded

KINDS = {
    "airflow_fernet",
    "airflow_jwt",
    "airflow_session",
    "airflow_passwords.json admin",
    "mlflow_admin",
    "mlflow_flask",
    "node_token",
    "signing_key",
}


@pytest.fixture(scope="module")
def words(embedded: Embedded) -> dict[str, str]:
    found = secrets_of(embedded.settings)
    assert set(found) == KINDS
    assert len(set(found.values())) == len(KINDS)
    assert min(len(word) for word in found.values()) >= 16
    return found


def kept(home: Path) -> list[Path]:
    """Return every file of the installation but its secrets and what is read as a database."""
    apart = {Path(f"{path}{end}") for path in databases(home) for end in ("", "-wal", "-shm")}
    return [
        path
        for path in home.rglob("*")
        if path.is_file() and path.parent != home / "secrets" and path not in apart
    ]


def test_no_file_holds_a_secret(embedded: Embedded, words: dict[str, str]) -> None:
    home = embedded.settings.home
    files = kept(home)
    assert Scanner(words).files(files) == {}
    telling = Scanner({"use case": "visits", "a log's level": "INFO"}).files(files)
    for place in (
        "logs/airflow",
        "logs/scheduler.log",
        "logs/api-server.log",
        "logs/mlflow.log",
        "reports/visits",
    ):
        assert any(path.startswith(str(home / place)) for path in telling), (
            f"nothing was read of {place}"
        )


def test_no_database_holds_a_secret(embedded: Embedded, words: dict[str, str]) -> None:
    read: dict[str, set[str]] = {}
    for path in databases(embedded.settings.home):
        assert Scanner(words).database(path) == {}, path
        read[path.name] = {column for column, _ in values(path)}
    assert {
        "xcom.value",
        "rendered_task_instance_fields.rendered_fields",
        "task_instance.dag_id",
    } <= read["airflow.db"]
    assert {"audit.details", "results.outputs"} <= read["records.db"]
    assert "params.value" in read["mlflow.db"]


def test_no_token_that_a_secret_has_signed_is_kept(embedded: Embedded) -> None:
    """Airflow gives a signed token to every task, and one to whoever logs in."""
    home = embedded.settings.home
    assert [str(path) for path in kept(home) if TOKEN.search(path.read_bytes())] == []
    for path in databases(home):
        assert {column for column, value in values(path) if TOKEN.search(value)} == set()


def test_what_was_printed_has_the_password_once_and_nothing_else(
    embedded: Embedded, words: dict[str, str]
) -> None:
    password = words["airflow_passwords.json admin"]
    assert embedded.said.count(password) == 1
    assert Scanner(words).names(embedded.said.replace(password, "").encode()) == set()


def test_no_command_line_shows_a_secret(embedded: Embedded, words: dict[str, str]) -> None:
    """Every user of a machine can read the command lines of its processes."""
    state = json.loads((embedded.settings.home / "run" / "supervisor.json").read_text())
    sessions = {session["pid"] for session in state["sessions"]}
    lines = [
        _command(pid)
        for pid in psutil.pids()
        if session_of(pid) in sessions or pid == embedded.process.pid
    ]
    assert len([line for line in lines if line]) >= len(state["sessions"])
    assert Scanner(words).names("\n".join(lines).encode()) == set()


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""
