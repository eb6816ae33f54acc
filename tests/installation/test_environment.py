"""What a child process sees does not depend on the shell that `make run` was typed into."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.errors import ConfigError
from include.installation.environment import child_environment
from include.installation.services import SERVICES
from include.orchestration.airflow_login import ensure_password

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


@pytest.mark.parametrize("part", ["scheduler", "celery-worker", "node", "mlflow"])
def test_whoever_reaches_a_store_elsewhere_does_so_by_the_proxy_and_its_exceptions(
    tmp_path: Path, part: str
) -> None:
    outer = NOISE | {"NO_PROXY": "minio.internal, .example.org"}
    elsewhere = Settings(
        home=tmp_path, store_uri="s3://bucket/evergreen", broker_url="redis://broker:6379/0"
    )
    told = child_environment(elsewhere, part, outer=outer)
    assert told["https_proxy"] == NOISE["https_proxy"]
    assert told["no_proxy"] == told["NO_PROXY"]
    direct = told["no_proxy"].split(",")
    assert {"127.0.0.1", "localhost", "minio.internal", ".example.org"} <= set(direct)
    everything = child_environment(elsewhere, part, outer=NOISE | {"no_proxy": "*"})
    assert everything["NO_PROXY"] == "*"


@pytest.mark.parametrize("part", ["node", "mlflow", "api-server"])
def test_whoever_reaches_nothing_outside_gets_no_proxy(tmp_path: Path, part: str) -> None:
    told = child_environment(Settings(home=tmp_path), part, outer=NOISE | {"no_proxy": "host"})
    assert "https_proxy" not in told
    assert "host" not in told["no_proxy"].split(",")


def test_a_node_that_only_ships_segments_elsewhere_gets_the_proxy(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, segments_uri="s3://bucket/segments")
    assert child_environment(settings, "node", outer=NOISE)["https_proxy"] == NOISE["https_proxy"]


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


WORDS = {
    "records": "hunter2-records",
    "mlflow": "hunter2-mlflow",
    "online": "hunter2-online",
    "alerts": "hunter2-alerts",
    "airflow": "hunter2-airflow",
    "broker": "hunter2-broker",
    "jwt": "hunter2-jwt-of-thirty-two-letters-or-more",
    "session": "hunter2-session-of-thirty-two-letters",
    "fernet": "hunter2-fernet-of-thirty-two-letters-or",
}
OF_TASKS = {"records", "mlflow", "online", "alerts"}


@pytest.mark.parametrize(
    ("part", "needs"),
    [
        ("api-server", {"airflow", "fernet", "jwt", "session"}),
        ("scheduler", OF_TASKS | {"airflow", "fernet", "jwt", "broker"}),
        ("dag-processor", OF_TASKS | {"airflow", "fernet"}),
        ("triggerer", OF_TASKS | {"airflow", "fernet"}),
        ("celery-worker", OF_TASKS | {"broker"}),
        ("airflow-init", {"airflow", "fernet"}),
        ("node", {"records", "online"}),
    ],
)
def test_each_part_has_the_secrets_that_it_needs_and_no_other(
    tmp_path: Path, part: str, needs: set[str]
) -> None:
    """In an installation of many machines, whose secrets lie in a folder."""
    for name in ("jwt", "session", "fernet"):
        (tmp_path / f"evergreen_airflow_{name}").write_text(WORDS[name])
    (tmp_path / "evergreen_node_token").write_text("n" * 43)
    settings = Settings(
        home=tmp_path / "home",
        secrets_dir=tmp_path,
        executor="celery",
        airflow_auth="fab",
        records_url=f"postgresql://u:{WORDS['records']}@db/evergreen",
        mlflow_uri=f"postgresql://u:{WORDS['mlflow']}@db/mlflow",
        online_url=f"redis://:{WORDS['online']}@redis:6379/0",
        alert_url=f"https://hooks.example.org/{WORDS['alerts']}",
        airflow_database_url=f"postgresql://u:{WORDS['airflow']}@db/airflow",
        broker_url=f"redis://:{WORDS['broker']}@broker:6379/0",
    )
    text = json.dumps(child_environment(settings, part, outer={}))
    assert {name for name, word in WORDS.items() if word in text} == needs


def test_a_part_starts_without_the_secrets_of_others(tmp_path: Path) -> None:
    """Each container has its own folder of secret files."""
    settings = Settings(
        home=tmp_path / "home",
        secrets_dir=tmp_path,
        executor="celery",
        broker_url="redis://broker:6379/0",
    )
    child_environment(settings, "celery-worker", outer={})
    with pytest.raises(ConfigError, match="evergreen_airflow_fernet"):
        child_environment(settings, "dag-processor", outer={})


def test_celery_without_a_broker_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, executor="celery")
    with pytest.raises(ConfigError, match="EVERGREEN_BROKER_URL names no Redis"):
        child_environment(settings, "celery-worker", outer={})
    child_environment(settings, "api-server", outer={})


def test_workers_reach_airflow_by_its_address_and_browsers_by_the_public_one(
    tmp_path: Path,
) -> None:
    settings = Settings(
        home=tmp_path,
        host="0.0.0.0",
        airflow_address="http://airflow:8080",
        airflow_public_address="https://airflow.example.org",
    )
    environment = child_environment(settings, "api-server", outer={})
    assert (
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow:8080/execution/"
    )
    assert environment["AIRFLOW__API__BASE_URL"] == "https://airflow.example.org"
    assert environment["AIRFLOW__API__HOST"] == "0.0.0.0"


def test_airflows_database_is_asked_by_the_driver_that_is_installed(tmp_path: Path) -> None:
    given = "postgresql+psycopg2://u:p%40@db/airflow?sslmode=require"
    settings = Settings(home=tmp_path, airflow_database_url=given)
    environment = child_environment(settings, "scheduler", outer={})
    wanted = "postgresql+psycopg://u:p%40@db/airflow?sslmode=require"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == wanted
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == wanted


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


def test_mlflows_server_reads_the_store_where_that_is_elsewhere(tmp_path: Path) -> None:
    outer = {"AWS_ACCESS_KEY_ID": "key", "PGSSLMODE": "require", "OTHER": "x"}
    elsewhere = Settings(home=tmp_path, store_uri="s3://bucket/evergreen")
    told = child_environment(elsewhere, "mlflow", outer=outer)
    assert (told["AWS_ACCESS_KEY_ID"], told["PGSSLMODE"]) == ("key", "require")
    assert "AWS_ACCESS_KEY_ID" not in child_environment(
        Settings(home=tmp_path), "mlflow", outer=outer
    )
