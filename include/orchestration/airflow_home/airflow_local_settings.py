"""Import ahead in the scheduler what every task that is forked from it then has for nothing.

Airflow imports this module by its bare name in all of its processes. The libraries are only
imported here, never used: no thread pool and no OpenMP runtime may have started before a fork.
"""

import importlib
import logging
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


if len(sys.argv) > 1 and sys.argv[1] == "scheduler":
    _warm()
