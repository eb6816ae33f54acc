"""One real installation for all end-to-end tests: `evergreen up`, on free ports, with two small
use cases of CSV files.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_runs import Run
from include.pipeline.flow import STAGES
from include.records.records import Records
from tests.builders.ports import free_ports

DAYS = 26
ENTITIES = 40
YAML = """
name: {name}
title: Does a visitor buy?
history: {history}
entity: {{name: visitor, key: visitor_id}}
sources:
  visits:
    path: "data/visits-{{partition}}.csv"
    event_time: at
    arrival: event + 0s
    key: [visitor_id, at]
    columns:
      visitor_id: {{type: int64, nullable: false}}
      at: {{type: timestamp, nullable: false}}
      pages: {{type: int64, min: 0}}
      minutes: {{type: float64}}
      bought: {{type: int64, values: ["0", "1"]}}
label: {{source: visits, column: bought, label_time: event + 1d, delay: 2d, lookback: 4d}}
features:
  visit:
    grain: event
    source: visits
    lookback: 10d
    ttl: 10d
    columns: {{pages: int64, minutes: float64}}
training: {{rounds: 30}}
gates: {{min_rows: 20, min_auc: 0.6, over_baseline: -0.2, max_calibration_error: 0.4}}
"""


class Installation:
    """A running installation: its settings, its records, Airflow's API, and what `evergreen up`
    printed.
    """

    def __init__(
        self, settings: Settings, use_case: str = "visits", *options: str, **environment: str
    ) -> None:
        self.settings, self.log = settings, settings.home.parent / "up.log"
        self.name, self.environment = use_case, environment
        self.process = self.start(*options)
        self.api = AirflowApi(settings)
        self.records = Records.open(settings.records_address)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start `evergreen up`."""
        command = [sys.executable, "-m", "include", "up", "--use-case", self.name, *options]
        with self.log.open("ab") as output:
            return subprocess.Popen(command, env=self.noise(), stdout=output, stderr=output)

    def command(self, *words: str) -> str:
        """Run another command of `evergreen` to its end; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "include", *words],
            env=self.noise(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

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

    def end(self) -> int:
        """Press Ctrl-C, unless it has ended; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def use_case(self, name: str) -> UseCase:
        return find(name, self.settings.usecase_dirs)

    def wait(self, there: Callable[[], bool], what: str, seconds: float = 240) -> None:
        """Wait for something, and say what and all that was printed if it does not come."""
        deadline = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None, f"it ended while waiting for {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s:\n{self.said}"
            time.sleep(0.5)

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
        seconds: float = 300,
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
        return self.records.routes.get(name), rows


EVERY_DAG = STAGES


def write_data(folder: Path, last: date) -> None:
    """Write a CSV a day up to `last`: who looks at more pages buys more often."""
    folder.mkdir(parents=True)
    for back in range(DAYS):
        day = last - timedelta(days=back)
        draw = random.Random(day.toordinal())
        lines = ["visitor_id,at,pages,minutes,bought"]
        for visitor in range(1, ENTITIES + 1):
            pages = draw.randint(0, 20)
            bought = int(draw.random() < 0.1 + 0.04 * pages)
            at = f"{day} {draw.randint(0, 23):02}:{draw.randint(0, 59):02}:00"
            lines.append(f"{visitor},{at},{pages},{draw.uniform(0, 60):.2f},{bought}")
        (folder / f"visits-{day}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`evergreen up` for the use case `visits`, up and answered; `fresh` is the same with a
    closed history, and never ran.
    """
    folder = tmp_path_factory.mktemp("e2e")
    yesterday = utc_now().date() - timedelta(days=1)
    write_data(folder / "usecases" / "data", yesterday)
    first = yesterday - timedelta(days=DAYS - 1)
    for name, history in (
        ("visits", f"{{first: {first}}}"),
        ("fresh", f"{{first: {first}, last: {yesterday}}}"),
    ):
        text = YAML.format(name=name, history=history)
        (folder / "usecases" / f"{name}.yaml").write_text(text)
    ports = free_ports(3)
    settings = Settings(
        home=folder / "var",
        usecases=str(folder / "usecases"),
        airflow_port=ports[0],
        mlflow_port=ports[1],
        node_port=ports[2],
    )
    started = Installation(settings)
    try:
        started.wait(lambda: "Ctrl-C stops everything" in started.said, "answer", 420)
        yield started
    finally:
        started.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes the shared installation down after all that need it, and what has one of
    its own after that.
    """
    last = ("test_stop.py", "test_nights.py")
    items.sort(key=lambda item: last.index(item.path.name) if item.path.name in last else -1)


def session_of(pid: int) -> int:
    """Return the session of a process, 0 if it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
