"""Import ahead what every task then has for nothing, in the process that tasks are forked from.

That is the scheduler, or a Celery worker: it forks its pool, and each process of the pool forks a
task. Airflow imports this module by its bare name in all of its processes. The libraries are only
imported here, never used: no thread pool and no OpenMP runtime may have started before a fork.
"""

import importlib
import logging
import os
import sys

from include.pipeline.flow import ENTRY

WARM = (
    "duckdb",
    "deltalake",
    "lightgbm",
    "great_expectations",
    "feast.repo_operations",
    "mlflow.lightgbm",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.store.tracking.sqlalchemy_store",
    "evidently.presets",
    "plotly.offline",
    "include.pipeline.runner",
    "include.features.feast_offline_store",
    "include.features.feast_online_store",
    "include.features.online_sync",
    "include.models.lightgbm_fitting",
    "include.evaluation.report",
    "include.monitoring.drift_report",
    "include.predictions.retention",
    "include.retention.collect_garbage",
    *ENTRY.values(),
)
CHATTY = ("great_expectations", "py.warnings", "mlflow", "alembic")


def _warm() -> None:
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in WARM:
        try:
            importlib.import_module(name)
        except Exception:  # a task that needs it will say so; the scheduler must start
            logging.getLogger(__name__).warning(
                "cannot import %s ahead of the tasks", name, exc_info=True
            )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET)


def _forks_tasks(words: list[str]) -> bool:
    """Tell whether the process of this command forks tasks."""
    if words[:1] == ["scheduler"]:
        return os.environ.get("AIRFLOW__CORE__EXECUTOR") == "LocalExecutor"
    return words[:2] == ["celery", "worker"]


if _forks_tasks(sys.argv[1:]):
    _warm()
