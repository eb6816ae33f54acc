"""The DAGs of dags/, parsed as the dag-processor does, with an Airflow home of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from include.config.settings import settings
from tests.builders.airflow_home import DAGS

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag


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
