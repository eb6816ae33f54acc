"""An Airflow home of its own for the tests of the room that imports Airflow."""

from __future__ import annotations

import tests.builders.airflow_home  # noqa: F401 - sets the environment before Airflow is imported
