"""CPU seconds of a task that is forked from a process which has imported ahead, and from one which
has not: `python -m tests.benchmarks.warmth HOME USECASES USE_CASE KEY` of an installation that is
stopped and has run this partition.

Each stage is run as a task is, in a fork, and computes beside its record (`force`). CPU time is
taken and not the clock's: it says the same on a busy machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from include.config.settings import ROOT
from include.processes import bare_environment

STAGES = ("validate_data", "train_model", "evaluate_model", "check_drift")
TIMES = 3
COMMANDS = {"warm": ["celery", "worker"], "cold": ["dag-processor"]}


def measure(home: Path, usecases: str, use_case: str, key: str) -> dict[str, object]:
    """Return the CPU seconds of each stage, warm and cold, and how large the parents are."""
    environment = bare_environment(
        EVERGREEN_HOME=str(home),
        EVERGREEN_USECASES=usecases,
        AIRFLOW_HOME=str(home / "airflow"),
        MLFLOW_TRACKING_URI=f"sqlite:///{home / 'mlflow.db'}",
        BENTOML_HOME=str(home / "bento"),
        OMP_WAIT_POLICY="passive",
        PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'include/orchestration/airflow_home'}",
        PYTHONWARNINGS="ignore",
    )
    found: dict[str, object] = {}
    for kind in COMMANDS:
        command = [sys.executable, "-m", "tests.benchmarks.warmth", kind, use_case, key]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    return found


def parent(kind: str, use_case: str, key: str) -> dict[str, object]:
    """Be what forks tasks; return its megabytes and the CPU seconds of each stage."""
    sys.argv = ["airflow", *COMMANDS[kind]]
    import airflow.providers.celery.executors.celery_executor
    import airflow.sdk.execution_time.task_runner
    import airflow_local_settings

    assert airflow.sdk
    assert airflow_local_settings
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    seconds = {stage: [_forked(stage, use_case, key) for _ in range(TIMES)] for stage in STAGES}
    return {"megabytes": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6), "seconds": seconds}


def _forked(stage: str, use_case: str, key: str) -> float:
    """Run a stage in a fork of this process; return its CPU seconds."""
    child = os.fork()
    if child == 0:
        try:
            from include.config.settings import settings
            from include.pipeline import runner

            runner.run(stage, use_case, key, settings=settings(), force=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    assert status == 0, f"{stage} failed"
    return round(used.ru_utime + used.ru_stime, 2)


if __name__ == "__main__":
    if sys.argv[1] in COMMANDS:
        report = parent(sys.argv[1], sys.argv[2], sys.argv[3])
    else:
        report = measure(Path(sys.argv[1]), *sys.argv[2:5])
    sys.stdout.write(json.dumps(report) + "\n")
