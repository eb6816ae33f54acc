"""Seconds that Airflow adds: per task and per hop, read from the database of a real installation
that ran one chain.

Per task: from being schedulable (the latest of the run's start and the end of the tasks before it)
to its first line of code, and from its last to the end of the run where it is the run's last task.
A task that waits, deferred, is not counted: its seconds are those of what it waits for. Per hop:
from the end of the task that emits to the start of the first task below.
"""

from __future__ import annotations

import os
import re
import sqlite3
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from include.clock import utc_now
from include.config.settings import ROOT
from tests.builders.ports import free_ports

LIMIT_TASK, LIMIT_HOP = 1.0, 1.5
TIMEOUT = 900.0
WAITS = ("wait_",)
HOPS = {
    "validate_data": ("ingest_data", "ingest"),
    "materialize_features": ("validate_data", "validate"),
    "train_model": ("materialize_features", "materialize"),
    "evaluate_model": ("train_model", "train"),
    "package_model": ("evaluate_model", "evaluate"),
    "check_drift": ("evaluate_model", "evaluate"),
    "deploy_model": ("package_model", "package"),
}


@dataclass(frozen=True)
class Task:
    """One task of one run, as Airflow's database has it."""

    dag: str
    run: str
    key: str
    name: str
    scheduled: datetime | None
    queued: datetime | None
    started: datetime
    ended: datetime
    run_started: datetime
    run_ended: datetime


def run_installation(home: Path, customers: int, days: int, say: Callable[[str], None]) -> None:
    """Run `evergreen up --once` in a home of its own with a small portfolio.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    folder = home / "usecases"
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "include" / "usecases" / "repayment.yaml").read_text()
    first = utc_now().date() - timedelta(days=days)
    text = re.sub(
        r"simulator: \{stream: (\w+)\}",
        rf"simulator: {{stream: \1, customers: {customers}}}\n    max_bad: 0.3",
        text,
    )
    text = re.sub(
        r"^gates:.*$",
        "gates: {min_auc: 0.5, min_rows: 5, max_calibration_error: 0.9, over_baseline: -0.5}",
        text,
        flags=re.M,
    )
    text = re.sub(r"first: 2026-01-01", f"first: {first}", text)
    text = re.sub(r"valid_from: 2026-01-01", f"valid_from: {first}", text)
    # The run of the release would not have ended, for the day in which its model is watched.
    (folder / "repayment.yaml").write_text(f"{text}\nrelease: {{watch: 0s}}\n")
    ports = free_ports(3)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EVERGREEN_", "AIRFLOW", "BENTOML"))
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_USECASES": str(folder),
        "EVERGREEN_AIRFLOW_PORT": str(ports[0]),
        "EVERGREEN_MLFLOW_PORT": str(ports[1]),
        "EVERGREEN_NODE_PORT": str(ports[2]),
        "PYTHONPATH": str(ROOT),
    }
    log = home / "up.log"
    say(f"  evergreen up --once in {home}")
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "include", "up", "--once"],
            env=environment,
            stdout=output,
            stderr=output,
            timeout=TIMEOUT,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(
            f"evergreen up --once ended with {done.returncode}:\n{log.read_text()[-3000:]}"
        )


def measure(home: Path) -> dict[str, Any]:
    """Return seconds per task and per hop of the newest chain that an installation ran."""
    tasks = _tasks(home)
    key = max((task.key for task in tasks if task.key), default="")
    chain = [task for task in tasks if task.key == key]
    if not chain:
        raise RuntimeError(f"{home} has no finished run of a partition in Airflow's database")
    runs: dict[str, list[Task]] = defaultdict(list)
    for task in chain:
        runs[task.dag].append(task)
    told = []
    for dag, members in sorted(runs.items()):
        members.sort(key=lambda task: task.started)
        for place, task in enumerate(members):
            if task.name.startswith(WAITS):
                continue
            before = members[place - 1].ended if place else task.run_started
            lag = (task.started - before).total_seconds()
            tail = (
                (task.run_ended - task.ended).total_seconds() if place == len(members) - 1 else 0.0
            )
            told.append(
                {
                    "dag": dag,
                    "task": task.name,
                    "start": lag,
                    "tail": tail,
                    "code": (task.ended - task.started).total_seconds(),
                }
            )
    hops = []
    for dag, (above, emitter) in HOPS.items():
        emits = [task for task in runs.get(above, ()) if task.name.startswith(emitter)] or runs.get(
            above, []
        )[-1:]
        if emits and runs.get(dag):
            hops.append(
                {
                    "from": above,
                    "to": dag,
                    "seconds": (runs[dag][0].started - emits[-1].ended).total_seconds(),
                }
            )
    task_mean, hop_mean = (
        statistics.mean(values)
        for values in ([t["start"] + t["tail"] for t in told], [h["seconds"] for h in hops])
    )
    return {
        "partition": key,
        "tasks": told,
        "hops": hops,
        "per_task": task_mean,
        "per_task_median": statistics.median(t["start"] + t["tail"] for t in told),
        "per_hop": hop_mean,
        "per_hop_median": statistics.median(h["seconds"] for h in hops),
        "limit_task": LIMIT_TASK,
        "limit_hop": LIMIT_HOP,
        "passed": task_mean <= LIMIT_TASK and hop_mean <= LIMIT_HOP,
    }


def _tasks(home: Path) -> list[Task]:
    (path,) = (home / "airflow").glob("airflow.db")
    query = """
        SELECT t.dag_id, t.run_id, coalesce(r.partition_key, ''), t.task_id, t.scheduled_dttm,
            t.queued_dttm, t.start_date,
            t.end_date, r.start_date, r.end_date
        FROM task_instance t JOIN dag_run r ON r.dag_id = t.dag_id AND r.run_id = t.run_id
        WHERE t.start_date IS NOT NULL AND t.end_date IS NOT NULL AND r.end_date IS NOT NULL
            AND t.queued_dttm IS NOT NULL
    """
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as con:
        rows = con.execute(query).fetchall()
    return [
        Task(
            dag.partition("__")[2],
            run,
            key,
            name,
            *(_moment(value) for value in times[:2]),
            *(_moment(value) for value in times[2:]),
        )
        for dag, run, key, name, *times in rows
    ]


def _moment(text: str | None) -> Any:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=None)
