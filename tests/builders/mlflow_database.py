"""An empty database of MLflow, made once a process: MLflow's own migrations take four seconds."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from include.config.settings import Settings
from include.models.mlflow_client import connected


def copy_database(home: Path) -> None:
    """Give the installation in `home` an empty database of MLflow."""
    shutil.copy(Path(_template().name) / "mlflow.db", home / "mlflow.db")


@cache
def _template() -> TemporaryDirectory[str]:
    """Return the folder with the database; it goes with the process."""
    folder = TemporaryDirectory(prefix="evergreen-mlflow-")
    with connected(Settings(home=Path(folder.name))):
        pass
    return folder
