"""Find MLflow's versions, runs and artefacts that belong to no model whose files stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from include.artefacts.address import MLFLOW
from include.artefacts.entry import Entry as Folder
from include.models import mlflow_cleaning
from include.models.mlflow_cleaning import Entry
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
    folders = {entry.name: entry for entry in place.store.entries(MLFLOW, place.name)}
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
            0 if entry.version else folders[entry.run_id].bytes if entry.run_id in folders else 0,
            why,
            partial(_remove, place, entry, folders.get(entry.run_id)),
            version if version in gone else None,
        )
    yield from _without_run(place, folders, {entry.run_id for entry in found} | kept_runs)


def finish(place: Place) -> None:
    """Delete what killed runs have put aside: its run is gone, or goes now."""
    place.store.finish(MLFLOW, place.name, lambda uri: False)


def _without_run(place: Place, folders: Mapping[str, Folder], known: set[str]) -> Iterator[Garbage]:
    """Yield the artefacts of runs that MLflow does not know any more; `known` are some it does."""
    now = place.at.timestamp()
    old = [
        name
        for name, folder in folders.items()
        if _RUN.fullmatch(name) and name not in known and place.is_old(now - folder.written)
    ]
    # A person's run in our experiment is none of ours, and its artefacts lie beside ours.
    for run_id in mlflow_cleaning.without_run(place.settings, old):
        folder, why = folders[run_id], "MLflow does not know its run"
        yield Garbage("mlflow", run_id, folder.bytes, why, partial(place.store.remove, folder))


def _remove(place: Place, entry: Entry, folder: Folder | None) -> bool:
    """Remove a version, or a run with its artefacts, while nobody trains its partition."""
    with place.training_kept_out(entry.partition) as alone:
        if not alone or _is_needed(place, entry):
            return False
        if entry.version:
            mlflow_cleaning.remove_version(place.settings, place.name, entry.version)
            return True
        # The files first: without the run nobody would know whose they are until they are old.
        if folder is not None and not entry.version:
            place.store.remove(folder)
        mlflow_cleaning.remove_run(place.settings, entry.run_id)
    return True


def _is_needed(place: Place, entry: Entry) -> bool:
    versions = place.records.database.read(lambda session: versions_of(session, place.name))
    return any(
        each.version == entry.version or (not entry.version and each.run_id == entry.run_id)
        for each in whole(versions)
    )
