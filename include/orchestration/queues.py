"""Where a task runs: on the queue and in the pool of its weight.

A Celery worker takes tasks from the queues that EVERGREEN_WORKER_QUEUES names. The pool bounds how
many heavy ones are with the workers at once: what waits for a slot waits in Airflow, since a task
that waits in the broker for longer than its token lasts has to be sent anew.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from include.config.settings import Settings

DEFAULT, HEAVY = "default", "heavy"
ALIVE_SECONDS = 20.0  # a worker leaves a sign every two
HEAVY_DAGS = ("train_model", "evaluate_model", "load_history")


def place_of(dag: str, settings: Settings) -> dict[str, Any]:
    """Return the arguments by which the tasks of a DAG are sent to where it may run."""
    if dag not in HEAVY_DAGS:
        return place_of_waits()
    # Beside the scheduler there are no queues, and `EVERGREEN_PARALLELISM` is the one bound.
    pool = {"pool": HEAVY} if settings.executor == "celery" else {}
    return {"queue": HEAVY, **pool}


def executor_with_database(settings: Settings) -> str | None:
    """Return the executor of a task that needs what no worker has: Airflow's own database."""
    return "LocalExecutor" if settings.executor == "celery" else None


def place_of_waits() -> dict[str, Any]:
    """Return the arguments of a task that is light in whatever DAG it stands."""
    return {"queue": DEFAULT, "pool": "default_pool"}


def alive_file(settings: Settings) -> Path:
    """Return the file whose time says when this home's Celery worker last reached its broker."""
    return settings.home / "run" / "celery-worker.alive"


def is_worker_alive(settings: Settings) -> bool:
    """Tell whether this home's Celery worker reaches its broker, and takes tasks from it."""
    try:
        touched = alive_file(settings).stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() - touched < ALIVE_SECONDS
