"""An installation of several machines' kind on this one: databases in PostgreSQL, a broker of its
own, people in FAB, tasks on Celery workers that can be added, stopped and killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg

from include.clock import utc_now, wait_for
from include.config.settings import Settings
from include.installation.child import Child, end
from include.installation.environment import child_environment
from include.installation.services import WORKER, command_of
from include.orchestration.queues import HEAVY, is_worker_alive
from tests.builders.ports import free_ports
from tests.builders.redis_server import Server
from tests.e2e.conftest import session_of
from tests.e2e.installations import Embedded


@dataclass(frozen=True)
class Started:
    """A stage that a worker has begun: the process of its task, and since when it was seen."""

    worker: Child
    key: str
    task: int
    at: datetime


def _any_of(asked: Callable[[], list[Any] | None]) -> bool:
    return bool(asked())


class Cluster(Embedded):
    """`evergreen up` with a first worker, which its supervisor keeps; others are a test's own."""

    def __init__(self, folder: Path, usecases: Path, databases: tuple[str, str], broker: Server):
        records, airflow = databases
        ports = free_ports(3)
        settings = Settings(
            home=folder / "var",
            usecases=str(usecases),
            airflow_port=ports[0],
            mlflow_port=ports[1],
            node_port=ports[2],
            records_url=records,
            airflow_database_url=airflow,
            airflow_auth="fab",
            airflow_user="op",
            executor="celery",
            broker_url=broker.url,
        )
        self.broker, self.workers = broker, dict[str, Child]()
        super().__init__(
            settings,
            "visits",
            EVERGREEN_RECORDS_URL=records,
            EVERGREEN_AIRFLOW_DATABASE_URL=airflow,
            EVERGREEN_AIRFLOW_AUTH="fab",
            EVERGREEN_AIRFLOW_USER="op",
            EVERGREEN_EXECUTOR="celery",
            EVERGREEN_BROKER_URL=broker.url,
        )

    def add_worker(self, name: str, **variables: str) -> Child:
        """Start a further worker and wait until it takes tasks."""
        worker = Child(
            name,
            [*command_of(self.settings, WORKER), "--celery-hostname", f"{name}@%h"],
            child_environment(self.settings, WORKER) | variables,
            self.settings.home / "logs" / f"{name}.log",
            lambda: is_worker_alive(self.settings),
        )
        self.workers[name] = worker
        worker.start()
        ready = wait_for(lambda: "ready." in worker.log.read_text() or None, seconds=240, every=0.2)
        assert ready, worker.log.read_text()
        return worker

    def send_heavy_to(self, name: str) -> None:
        """Have one worker alone take heavy tasks: `celery` is the supervisor's."""
        self.send_to(name, HEAVY)

    def send_to(self, name: str, queue: str) -> None:
        """Have one worker alone take tasks from a queue."""
        from celery import Celery
        from kombu import pools

        pools.reset()  # a broker that was away has left connections in there
        with Celery(broker=self.broker.url) as app:
            there = [one for one, worker in self.workers.items() if self._answers(worker)]
            for worker in ("celery", *there):
                change = app.control.add_consumer if worker == name else app.control.cancel_consumer
                node = f"{worker}@{socket.gethostname()}"
                # Without a limit it waits for other workers' answers until its time is over.
                # Who has lost the broker does not hear it, and is told again.
                told = partial(change, queue, destination=[node], reply=True, limit=1, timeout=10)
                answered = wait_for(partial(_any_of, told), seconds=180, every=0.5)
                assert answered, f"{node} does not answer"

    def _answers(self, worker: Child) -> bool:
        """Tell whether a worker is there, and not frozen."""
        if not worker.alive or worker.process is None:
            return False
        return psutil.Process(worker.process.pid).status() != psutil.STATUS_STOPPED

    def running(self, stage: str, key: str) -> int:
        """Return the process that holds the lease of a stage, once there is one."""
        found: list[int] = []

        def there() -> bool:
            held = self.records.leases.holders("fresh")
            found[:] = [one.pid for one in held if (one.stage, one.key) == (stage, key)]
            return bool(found)

        self.wait(there, f"start of {stage} {key}", 180, every=0.02)
        return found[0]

    def ask_airflow(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask Airflow's own database."""
        with psycopg.connect(self.settings.airflow_database.replace("+psycopg", "")) as database:
            return database.execute(sql).fetchall()

    def end(self) -> int:
        end(self.workers.values())
        return super().end()

    def processes_of(self, worker: Child) -> list[psutil.Process]:
        """Return what lives in a worker's session: itself, its pool, supervisors and tasks."""
        assert worker.process is not None
        found = [pid for pid in psutil.pids() if session_of(pid) == worker.process.pid]
        return [psutil.Process(pid) for pid in found]

    def signal_worker(self, worker: Child, number: int) -> None:
        """Send a signal to a worker and all that it started, as if to its machine."""
        for process in self.processes_of(worker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def start_on(self, worker: Child, stage: str, key: str) -> Started:
        """Start a key's chain, and wait until a worker has begun one of its heavy stages."""
        self.send_heavy_to(worker.name)
        self.api.trigger("fresh__ingest_data", key=key)
        task = self.running(stage, key)
        assert worker.process is not None
        assert session_of(task) == worker.process.pid
        return Started(worker, key, task, utc_now())
