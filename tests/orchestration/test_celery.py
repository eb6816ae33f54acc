"""What our executor and workers do where Redis is away, or gives out a message twice."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.clock import wait_for
from include.config.settings import ROOT, Settings
from include.orchestration.queues import alive_file, is_worker_alive, place_of
from tests.builders import airflow_home
from tests.builders.ports import free_port
from tests.builders.redis_server import own_server
from tests.builders.stopwatch import Stopwatch

ONLY_A_LAPTOP = """
import sys
for name in ("celery", "kombu", "flask_appbuilder", "asyncpg", "psycopg2"):
    sys.modules[name] = None  # an import of it fails, as where it is not installed
import importlib, pathlib
from include.config.settings import settings
from include.installation import services, up
from include.cli.app import app
for child in services.children(settings()):
    assert child.environment
for path in pathlib.Path("dags").glob("*.py"):
    if path.stem != "use_cases":
        importlib.import_module(f"dags.{path.stem}")
print("all of it")
"""


@pytest.fixture
def celery(monkeypatch: pytest.MonkeyPatch) -> str:
    """Airflow's configuration of a broker that nobody runs; the address of it."""
    assert airflow_home.DAGS
    pytest.importorskip("airflow.providers.celery", reason="requirements-compose.txt is missing")
    url = f"redis://127.0.0.1:{free_port()}/0"
    for name, value in (
        ("BROKER_URL", url),
        ("RESULT_BACKEND", url),
        ("OPERATION_TIMEOUT", "2"),
        ("SYNC_PARALLELISM", "1"),
    ):
        monkeypatch.setenv(f"AIRFLOW__CELERY__{name}", value)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "j" * 43)
    return url


def test_the_scheduler_outlives_a_broker_that_is_away(
    celery: str, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.providers.celery.executors.celery_executor import CeleryExecutor

    from include.orchestration.celery_executor import AWAY, PatientCeleryExecutor

    executor: Any = PatientCeleryExecutor(parallelism=1)
    executor.workloads["key"] = executor.celery_app.AsyncResult("one")
    with pytest.raises(AWAY):  # what ends the scheduler otherwise
        CeleryExecutor.sync(executor)
    with caplog.at_level(logging.WARNING):
        executor.sync()
        executor.sync()
    assert list(executor.workloads) == ["key"], "it is asked for again"


def test_what_cannot_be_sent_stays_in_the_queue(celery: str) -> None:
    from include.orchestration.celery_executor import PatientCeleryExecutor

    executor: Any = PatientCeleryExecutor(parallelism=1)
    workload = SimpleNamespace(model_dump_json=lambda: "{}")
    executor.queued_tasks["key"] = workload
    stopwatch = Stopwatch()
    executor._send_workloads([("key", workload, "default", None)])
    assert stopwatch.seconds < 15, "the scheduler waits meanwhile"
    assert list(executor.queued_tasks) == ["key"]
    assert executor.event_buffer == {}, "no task has failed"


def test_a_message_that_is_delivered_again_runs_nothing(celery: str, tmp_path: Path) -> None:
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    from include.orchestration.celery_configuration import CONFIGURATION

    ran: list[str] = []
    with own_server(tmp_path) as broker:
        app = Celery(broker=broker.url, backend=broker.url)
        app.conf.task_annotations = CONFIGURATION["task_annotations"]

        @app.task(name="execute_workload")
        def task(word: str) -> None:
            ran.append(word)

        task.delay("delivered again")
        message = json.loads(broker.client.lpop("celery") or "")  # type: ignore[arg-type]
        message["properties"]["delivery_info"]["redelivered"] = True
        broker.client.lpush("celery", json.dumps(message))
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            task.delay("new")
            assert wait_for(lambda: "new" in ran or None, seconds=60, every=0.1)
            assert wait_for(lambda: not broker.client.llen("celery") or None, seconds=60, every=0.1)
    assert ran == ["new"]


def test_a_worker_counts_as_well_while_it_reaches_its_broker(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert not is_worker_alive(settings)
    path = alive_file(settings)
    path.parent.mkdir()
    path.touch()
    assert is_worker_alive(settings)
    os.utime(path, (time.time() - 60,) * 2)
    assert not is_worker_alive(settings), "it has not reached its broker for a minute"


def test_heavy_tasks_have_their_own_queue_and_on_workers_a_bound(tmp_path: Path) -> None:
    local, many = Settings(home=tmp_path), Settings(home=tmp_path, executor="celery")
    assert place_of("train_model", local) == {"queue": "heavy"}
    assert place_of("train_model", many) == {"queue": "heavy", "pool": "heavy"}
    assert place_of("ingest_data", many) == {"queue": "default", "pool": "default_pool"}


def test_a_laptop_needs_no_package_of_the_many_machines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONLY_A_LAPTOP],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin",
            "EVERGREEN_HOME": str(tmp_path / "var"),
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("all of it\n"), done.stderr
