"""The two kinds of installation that the end-to-end tests run against: one that `evergreen up` runs
on this machine, and one in containers.

EVERGREEN_E2E=compose takes the containers that run already (COMPOSE_PROJECT_NAME, SECRETS and
USECASES are read as docker-compose.yaml reads them). Tests of one kind alone take `embedded`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import make_url

from include.clock import utc_now
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_runs import Run
from include.pipeline.flow import STAGES
from include.point_in_time import partitions
from include.records.records import Records

EVERY_DAG = STAGES
READ_TABLE = (
    "import json, sys; from include.config.settings import settings; from include.lake.tables "
    "import Lake; lake, table = Lake(settings().lake_root), sys.argv[1]; print(json.dumps("
    "lake.read(table).to_pylist() if lake.exists(table) else [], default=str))"
)


class Installation(ABC):
    """A running installation: its settings, its records and Airflow's API."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = AirflowApi(settings)
        self.records = Records.open(settings.records_address)

    @abstractmethod
    def command(self, *words: str) -> str:
        """Run a command of `evergreen` to its end; return what it printed."""

    @abstractmethod
    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table of the lake."""

    @abstractmethod
    def is_logged(self, use_case: str) -> bool:
        """Tell whether answers are logged that no import can read yet, or has read."""

    @property
    @abstractmethod
    def said(self) -> str:
        """What it printed, for a test that fails."""

    @abstractmethod
    def check(self, what: str) -> None:
        """Fail where the installation has ended while a test waits for something."""

    def use_case(self, name: str) -> UseCase:
        return find(name, self.settings.usecase_dirs)

    def wait(
        self, there: Callable[[], bool], what: str, seconds: float = 600, *, every: float = 0.5
    ) -> None:
        """Wait for something, and say what and all that was printed if it does not come."""
        deadline = time.monotonic() + seconds
        while not there():
            self.check(what)
            assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s:\n{self.said}"
            time.sleep(every)

    def chain(self, name: str, key: str, *, after: datetime | None = None) -> dict[str, Run]:
        """Return the newest ended run of every DAG for a key."""
        runs = self.api.runs(prefix=f"{name}__", key=key, states=("success", "failed"), after=after)
        return {
            run.dag_id.split("__")[1]: run
            for run in sorted(runs, key=lambda run: run.ended or utc_now())
        }

    def settle(
        self,
        name: str,
        keys: Sequence[str],
        *,
        dags: Sequence[str],
        after: datetime,
        seconds: float = 600,
    ) -> None:
        """Wait until these DAGs have ended for these keys, all of them well."""

        def ended() -> bool:
            for key in keys:
                found = self.chain(name, key, after=after)
                bad = [run for run in found.values() if run.state != "success"]
                assert not bad, [
                    (run.dag_id, run.key, [(t.task_id, t.state) for t in self.api.tasks(run)])
                    for run in bad
                ]
                if not set(dags) <= set(found):
                    return False
            return not self.api.runs(prefix=f"{name}__", states=("queued", "running"))

        self.wait(ended, f"end of {name} {keys}", seconds)

    def live_state(self, name: str) -> object:
        """Return all that a backfill must never touch."""
        online = {
            one.version: self.records.feature_sets.online(name, one.version)
            for one in self.records.feature_sets.of(name)
        }
        # One that is declared, and was never online, is no live effect.
        sets = {version: key for version, key in online.items() if key is not None}
        return self.records.routes.get(name), sets


class Embedded(Installation):
    """`evergreen up` on this machine, from a shell full of noise."""

    def __init__(
        self, settings: Settings, use_case: str = "visits", *options: str, **environment: str
    ) -> None:
        self.settings, self.log = settings, settings.home.parent / "up.log"
        self.name, self.environment = use_case, environment
        self.alerts: list[dict[str, Any]] = []  # that its alerts' address was sent
        self.process = self.start(*options)
        super().__init__(settings)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start `evergreen up`."""
        command = [sys.executable, "-m", "include", "up", "--use-case", self.name, *options]
        with self.log.open("ab") as output:
            return subprocess.Popen(command, env=self.noise(), stdout=output, stderr=output)

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "include", *words],
            env=self.noise(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, table: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", READ_TABLE, table],
            env=self.noise(),
            capture_output=True,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def is_logged(self, use_case: str) -> bool:
        # The segment of the first answer is closed after a minute.
        logs = self.settings.home / "predictions" / use_case
        return not list(logs.glob("*.open"))

    def noise(self) -> dict[str, str]:
        """Return the environment of a person's shell, full of noise."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EVERGREEN_", "AIRFLOW"))
        }
        return environment | {
            "EVERGREEN_HOME": str(self.settings.home),
            "EVERGREEN_USECASES": self.settings.usecases,
            "EVERGREEN_DATA_DIR": str(self.settings.data_dir),
            "EVERGREEN_AIRFLOW_PORT": str(self.settings.airflow_port),
            "EVERGREEN_MLFLOW_PORT": str(self.settings.mlflow_port),
            "EVERGREEN_NODE_PORT": str(self.settings.node_port),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "Asia/Kolkata",
            **self.environment,
        }

    def check(self, what: str) -> None:
        assert self.process.poll() is None, f"it ended while waiting for {what}:\n{self.said}"

    def end(self) -> int:
        """Press Ctrl-C, unless it has ended; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def live_state(self, name: str) -> object:
        import sqlite3

        path = self.settings.home / "online" / f"{name}.db"
        rows: list[object] = []
        if path.exists():
            with sqlite3.connect(path) as con:
                rows = list(
                    con.execute(
                        'SELECT feature_set, entity, event_ts, "values" FROM rows ORDER BY 1, 2'
                    )
                )
                rows += list(con.execute("SELECT feature_set, partition FROM sets ORDER BY 1"))
        return super().live_state(name), rows


class Composed(Installation):
    """The containers of docker-compose.yaml, which run already."""

    def __init__(self) -> None:
        secrets = Path(os.environ.get("SECRETS") or ROOT / "secrets")
        self.usecases = Path(os.environ.get("USECASES") or ROOT / "usecases")
        airflow, self.node_url = self._address("api-server", 8080), self._address("balancer", 8600)
        own = self.usecases.parent / ".e2e-secrets"
        own.mkdir(mode=0o700, exist_ok=True)
        for name in ("airflow_op", "node_token"):
            (own / f"evergreen_{name}").write_text((secrets / name).read_text())
        super().__init__(
            Settings(
                home=own,
                secrets_dir=own,
                usecases=str(self.usecases),
                airflow_address=airflow,
                airflow_auth="fab",
                airflow_user="op",
                records_url=self._reached((secrets / "records_worker_url").read_text().strip()),
            )
        )

    def bring_up(self, name: str, first: str, before: str) -> None:
        """Do what `evergreen up` does for a use case: its history, its newest day, an answer."""
        wanted, began = {f"{name}__{dag}" for dag in (*EVERY_DAG, "load_history")}, utc_now()
        self.wait(lambda: wanted <= self.api.dag_ids(name), f"DAGs of {name}", 180)
        self.command("load-history", name, "--from", first, "--to", before)
        self.api.pause(f"{name}__ingest_data", False)
        newest = partitions.newest_complete(self.use_case(name), utc_now())
        assert newest is not None
        # Asked before, a node would put on record that it has no model.
        self.settle(name, [newest], dags=EVERY_DAG, after=began, seconds=900)
        self.wait(lambda: self._answers(name), f"answer of {name}", 60)

    def command(self, *words: str) -> str:
        return self._compose("run", "--rm", "-T", "evergreen", "command", *words)

    def rows(self, table: str) -> list[dict[str, Any]]:
        words = ("run", "--rm", "-T", "--entrypoint", "python", "evergreen", "-c", READ_TABLE)
        found: list[dict[str, Any]] = json.loads(self._compose(*words, table).splitlines()[-1])
        return found

    def check(self, what: str) -> None:
        pass  # what ends is started again by the engine

    def is_logged(self, use_case: str) -> bool:
        return True  # nodes ship closed segments; the import is asked again until it has them

    @property
    def said(self) -> str:
        return self._compose("logs", "--tail", "40")

    def _answers(self, name: str) -> bool:
        token = self.settings.node_secret.get_secret_value()
        answer = httpx.post(
            f"{self.node_url}/v1/{name}/predict",
            json={"entity": 1},
            headers={"authorization": f"Bearer {token}"},
            timeout=10,
        )
        return answer.status_code == 200

    def _address(self, service: str, port: int) -> str:
        return f"http://{self._compose('port', service, str(port)).strip()}"

    def _reached(self, url: str) -> str:
        """Return a URL of a service as this machine reaches it: by the container's own address."""
        parts = make_url(url)
        container = self._compose("ps", "-q", str(parts.host)).strip()
        found = subprocess.run(
            ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
             container],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        address = found.stdout.split()[0]
        return parts.set(host=address).render_as_string(hide_password=False)

    def _compose(self, *words: str) -> str:
        done = subprocess.run(
            ["docker", "compose", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
