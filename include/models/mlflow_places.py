"""Where MLflow's own artefacts lie: in the store, below the use case's name.

MLflow keeps whole locations in its database. Of a home that was moved, and of a store that is
another one by now, they are brought up to date before the next run; a server keeps its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.artefacts.address import MLFLOW, Address
from include.artefacts.store import ArtefactStore
from include.config.settings import Settings

log = logging.getLogger(__name__)


def artefact_place(settings: Settings, use_case: str) -> str:
    """Return the URI below which the artefacts of a use case's runs lie, as MLflow names it."""
    place = f"{settings.store_root}/{MLFLOW}/{use_case}"
    return place if "://" in place else Path(place).as_uri()


def log_files(client: Any, settings: Settings, run: Any, folders: Mapping[str, Path]) -> None:
    """Put the files of folders with a run, each folder under its name ("": at the top).

    Into an object store by our own client, which reaches every kind that holds other artefacts:
    MLflow has a further library for each.

    Raises:
        Unavailable: they cannot be written.
    """
    uri, run_id = str(run.info.artifact_uri), str(run.info.run_id)
    root = f"{settings.store_root}/"
    if "://" not in root or not uri.startswith(root):
        for name, folder in folders.items():
            client.log_artifacts(run_id, str(folder), name or None)
        return
    store, below = ArtefactStore.of(settings), uri.removeprefix(root).split("/")
    for name, folder in folders.items():
        rest = "/".join([*below[2:], *([name] if name else [])])
        store.upload(folder, Address(below[0], below[1], rest))


def follow_move(client: Any, settings: Settings, use_case: str, experiment: Any) -> None:
    """Let further runs of an experiment put their artefacts where the store is now.

    Runs of before are told where theirs are if their folder is gone, and is below the store: the
    home, or what is mounted, has moved as a whole.
    """
    wanted, before = artefact_place(settings, use_case), str(experiment.artifact_location)
    store = getattr(client._tracking_client.store, "ManagedSessionMaker", None)
    if before == wanted or store is None or settings.mlflow_address.startswith("http"):
        return
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun

    here = Path(wanted.removeprefix("file://"))
    with store(read_only=False) as session:
        number = int(experiment.experiment_id)
        (row,) = session.query(SqlExperiment).filter_by(experiment_id=number)
        row.artifact_location = wanted
        for run in session.query(SqlRun).filter_by(experiment_id=number):
            path = Path(run.artifact_uri.removeprefix("file://"))
            if run.artifact_uri.startswith(f"{before}/") and not path.exists():
                moved = here / path.relative_to(before.removeprefix("file://"))
                if moved.is_dir():
                    run.artifact_uri = moved.as_uri()
    log.info("%s: MLflow's artefacts are in %s from now on, not in %s", use_case, wanted, before)
