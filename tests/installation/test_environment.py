"""What a child process sees does not depend on the shell that `make run` was typed into."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.errors import ConfigError
from include.installation.environment import child_environment, ensure_password
from include.installation.services import SERVICES

NOISE = {
    "PATH": "/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/somewhere/else",
    "PYTHONHASHSEED": "7",
    "AIRFLOW_HOME": "/other/airflow",
    "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
    "MLFLOW_TRACKING_URI": "http://other:5000",
    "OMP_NUM_THREADS": "64",
    "TZ": "Asia/Kolkata",
    "LC_ALL": "C",
    "LANG": "tr_TR",
    "https_proxy": "http://proxy:3128",
    "WAREHOUSE_URL": "postgresql://host/db",
}


def test_noise_of_the_shell_changes_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    quiet, noisy = (
        child_environment(settings, outer={"PATH": "/usr/bin"}),
        child_environment(settings, outer=NOISE),
    )
    assert {name: noisy[name] for name in quiet} == quiet
    assert noisy.keys() - quiet.keys() == {"https_proxy"}


def test_loopback_never_goes_through_a_proxy_and_sources_still_may(tmp_path: Path) -> None:
    environment = child_environment(Settings(home=tmp_path), outer=NOISE)
    assert "127.0.0.1" in environment["no_proxy"].split(",")
    assert environment["https_proxy"] == NOISE["https_proxy"]


def test_only_tasks_get_what_a_use_case_names(tmp_path: Path) -> None:
    (tmp_path / "usecases").mkdir()
    text = (
        "sources:\n  a: {sql: {url_env: WAREHOUSE_URL}}\n  b:\n    url_env: 'AIRFLOW_HOME'\n  c: ["
    )
    (tmp_path / "usecases" / "broken_today.yaml").write_text(text)
    settings = Settings(home=tmp_path, usecases=str(tmp_path / "usecases"))
    outer = {**NOISE, "AWS_SECRET_ACCESS_KEY": "x", "PGPASSFILE": "y", "SOME_TOKEN": "z"}
    has = {name: child_environment(settings, name, outer) for name in SERVICES}
    for name in SERVICES:
        tasks = name in ("scheduler", "triggerer", "dag-processor")
        assert ("WAREHOUSE_URL" in has[name]) == tasks
        assert ("AWS_SECRET_ACCESS_KEY" in has[name]) == tasks
        assert ("PGPASSFILE" in has[name]) == (name != "api-server")
        assert has[name].get("AIRFLOW_HOME") != "/other/airflow"
        assert "SOME_TOKEN" not in has[name]


def test_every_server_gets_the_address_and_port_of_the_settings(tmp_path: Path) -> None:
    environment = child_environment(
        Settings(home=tmp_path, airflow_port=18081, node_port=18601), outer={}
    )
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__API__PORT"] == "18081"
    assert (
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
        == "http://127.0.0.1:18081/execution/"
    )
    assert environment["EVERGREEN_NODE_PORT"] == "18601"
    assert environment["EVERGREEN_HOME"] == str(tmp_path)


def test_a_child_reads_the_same_settings_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        home=tmp_path,
        data_dir=tmp_path,
        seed=11,
        parallelism=3,
        records_url="postgresql://u:p@h/db",
    )
    for name, value in child_environment(settings, outer={}).items():
        monkeypatch.setenv(name, value)
    assert Settings().model_dump() == settings.model_dump()


def test_the_password_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    made = ensure_password(settings)
    assert made
    assert ensure_password(settings) is None
    path = tmp_path / "secrets" / "airflow_passwords.json"
    assert json.loads(path.read_text()) == {"admin": made}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("left", ["", "{}", '{"admin": ""}', '{"admin": "short"}', "[]", "{"])
def test_a_password_that_was_emptied_is_refused(tmp_path: Path, left: str) -> None:
    """Airflow would make up another one and write it into its log."""
    settings = Settings(home=tmp_path)
    ensure_password(settings)
    path = tmp_path / "secrets" / "airflow_passwords.json"
    path.write_text(left)
    with pytest.raises(ConfigError, match=f"{path}.*delete it"):
        ensure_password(settings)
    path.unlink()
    assert ensure_password(settings)
