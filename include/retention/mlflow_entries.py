"""Find MLflow's versions, runs and artefacts that belong to no model whose files stay."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from include.models import mlflow_cleaning
from include.models.mlflow_cleaning import Entry
from include.retention import aside
from include.retention.garbage import Garbage, Place, whole
from include.retention.marks import Version, versions_of

_RUN = re.compile(r"[0-9a-f]{32}")  # as MLflow names the folder of a run


def find_garbage(
    place: Place, versions: Sequence[Version], gone: frozenset[int]
) -> Iterator[Garbage]:
    """Yield versions, then runs with their artefacts: a version without its run would be empty.

    Raises:
        Unavailable: MLflow does not answer.
    """
    known = {each.version for each in versions}
    staying = whole(versions, gone)
    run_of = {each.run_id: each.version for each in versions if each.run_id}
    kept_versions = {each.version for each in staying}
    kept_runs = {each.run_id for each in staying}
    found = mlflow_cleaning.entries(place.settings, place.name)
    for entry in found:
        is_kept = entry.version in kept_versions if entry.version else entry.run_id in kept_runs
        is_known = entry.version in known if entry.version else entry.run_id in run_of
        is_young = not place.is_old((place.at - entry.made_at).total_seconds())
        if is_kept or (not is_known and is_young):
            continue
        version = entry.version or run_of.get(entry.run_id)
        why = "nothing needs this version" if is_known else "no record names it"
        yield Garbage(
            "mlflow",
            f"version {entry.version}" if entry.version else f"run {entry.run_id}",
            0 if entry.version else _size(place, entry.run_id),
            why,
            partial(_remove, place, entry),
            version if version in gone else None,
        )
    yield from _without_run(place, {entry.run_id for entry in found} | kept_runs)


def finish(place: Place) -> None:
    """Delete what killed runs have put aside: its run is gone, or goes now."""
    aside.finish(mlflow_cleaning.artefacts_of(place.settings, place.name), lambda name: False)


def _without_run(place: Place, known: set[str]) -> Iterator[Garbage]:
    """Yield the artefacts of runs that MLflow does not know any more; `known` are some it does."""
    home, now = mlflow_cleaning.artefacts_of(place.settings, place.name), place.at.timestamp()
    old = [
        folder.name
        for folder in sorted(home.iterdir() if home.is_dir() else [])
        if _RUN.fullmatch(folder.name)
        and folder.name not in known
        and place.is_old(aside.age_of(folder, now))
    ]
    # A person's run in our experiment is none of ours, and its artefacts lie beside ours.
    for run_id in mlflow_cleaning.without_run(place.settings, old):
        folder = home / run_id
        why = "MLflow does not know its run"
        size = aside.size_of(folder)
        yield Garbage("mlflow", run_id, size, why, partial(aside.remove, folder))


def _remove(place: Place, entry: Entry) -> bool:
    """Remove a version, or a run with its artefacts, while nobody trains its partition."""
    with place.training_kept_out(entry.partition) as alone:
        if not alone or _is_needed(place, entry):
            return False
        if entry.version:
            mlflow_cleaning.remove_version(place.settings, place.name, entry.version)
            return True
        # The files first: without the run nobody would know whose they are until they are old.
        folder = _folder(place, entry.run_id)
        if folder is not None:
            aside.remove(folder)
        mlflow_cleaning.remove_run(place.settings, entry.run_id)
    return True


def _is_needed(place: Place, entry: Entry) -> bool:
    versions = place.records.database.read(lambda session: versions_of(session, place.name))
    return any(
        each.version == entry.version or (not entry.version and each.run_id == entry.run_id)
        for each in whole(versions)
    )


def _folder(place: Place, run_id: str) -> Path | None:
    """Return the folder of a run's artefacts; None where its name is none."""
    if not _RUN.fullmatch(run_id):
        return None
    return mlflow_cleaning.artefacts_of(place.settings, place.name) / run_id


def _size(place: Place, run_id: str) -> int:
    folder = _folder(place, run_id)
    with contextlib.suppress(FileNotFoundError):
        return 0 if folder is None else aside.size_of(folder)
    return 0
