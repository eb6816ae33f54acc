"""Airflow for the tests of dags/: an empty home of its own.

The environment is set before anything imports Airflow.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from include.config.settings import ROOT, settings

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

DAGS = ROOT / "dags"
_HOME = Path(tempfile.mkdtemp(prefix="evergreen-airflow-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__PLUGINS_FOLDER=str(_HOME / "none"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
)


def parse() -> DagBag:
    """Parse dags/ as the dag-processor does, with the settings of now."""
    from airflow.dag_processing.dagbag import DagBag

    settings.cache_clear()
    return DagBag(dag_folder=str(DAGS))


@pytest.fixture(scope="session")
def bag() -> Iterator[DagBag]:
    """All DAGs of the shipped use cases."""
    yield parse()
    settings.cache_clear()
