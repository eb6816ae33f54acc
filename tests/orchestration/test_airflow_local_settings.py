"""What is imported ahead of the tasks, in the process that forks them: all of it can be imported,
and no thread may run before a fork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from include.config.settings import ROOT

LOOK = """
import json, logging, os, sys, threading
said = []
class Kept(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("airflow_local_settings").addHandler(Kept())
import airflow_local_settings as warm
print(json.dumps({
    "said": said,
    "threads": [thread.name for thread in threading.enumerate()],
    "of the system": len(os.listdir("/proc/self/task")),
    "there": sorted(set(warm.WARM) & set(sys.modules)),
    "wanted": sorted(set(warm.WARM)),
}))
"""


def look(*arguments: str, executor: str = "LocalExecutor") -> dict[str, Any]:
    path = f"{ROOT}{os.pathsep}{ROOT / 'include' / 'orchestration' / 'airflow_home'}"
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
        "AIRFLOW__CORE__EXECUTOR": executor,
    }
    command = [sys.executable, "-c", LOOK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


CELERY = "include.orchestration.celery_executor.PatientCeleryExecutor"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "executor"),
    [(("scheduler", "--skip-serve-logs"), "LocalExecutor"), (("celery", "worker"), CELERY)],
)
def test_what_forks_tasks_imports_all_of_it_and_starts_no_thread(
    command: tuple[str, ...], executor: str
) -> None:
    found = look(*command, executor=executor)
    assert found["said"] == []
    assert found["there"] == found["wanted"]
    assert found["threads"] == ["MainThread"]


def test_no_other_process_pays_for_it() -> None:
    assert look("dag-processor")["there"] == []
    assert look("scheduler", executor=CELERY)["there"] == [], "its tasks run on workers"
