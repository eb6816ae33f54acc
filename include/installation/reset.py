"""Forget a use case: its rows in the records, its entries in MLflow, then its folders.

The audit log stays, with an entry more.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from include.artefacts.address import MODELS
from include.artefacts.cache import FOLDER as CACHE
from include.artefacts.store import KINDS, ArtefactStore
from include.clock import utc_now
from include.config.names import NAME
from include.config.settings import Settings
from include.errors import Busy, ConfigError, SourceError
from include.features.online_stores import online_path, open_store
from include.lake.copies import copies_of, keep_copies
from include.models import mlflow_registry
from include.object_stores import explain, explained, filesystem, is_remote
from include.predictions.shared import SharedPlace
from include.records.records import AuditEntry, Records

_REMEDY = "check that the store answers, and its credentials, and reset again"


@dataclass(frozen=True)
class State:
    """What there is of a use case: rows by table, megabytes by folder, entries in MLflow."""

    records: dict[str, int]
    folders: dict[str, float]
    mlflow: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to delete."""
        counts = (*self.records.values(), *self.mlflow.values())
        return not any(counts) and not self.folders

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of a table: what, and how much of it."""
        tables = [
            (f"records: {table}", f"{count} rows") for table, count in self.records.items() if count
        ]
        tables += [(f"MLflow: {what}", str(count)) for what, count in self.mlflow.items() if count]
        return tables + [(folder, f"{size:.1f} MB") for folder, size in self.folders.items()]


def preview(settings: Settings, records: Records, use_case: str) -> State:
    """Return what `reset` would delete."""
    _check_name(use_case)
    folders = {str(path): _megabytes(path) for path in _paths(settings, use_case) if path.exists()}
    if is_remote(settings.lake_root) and (remote := _remote(settings, use_case)) is not None:
        folders[f"{settings.lake_root}/{use_case}"] = remote
    sizes = ArtefactStore.of(settings).sizes(use_case)
    folders |= {place: size / 1e6 for place, size in sizes.items()}
    return State(
        records.forget(use_case), folders, mlflow_registry.count_entries(settings, use_case)
    )


def reset(settings: Settings, records: Records, use_case: str, *, actor: str) -> None:
    """Delete everything of a use case but its audit log. Killed half-way, it can be run again.

    Raises:
        Busy: a stage of the use case is running.
        Unavailable: MLflow, the store of artefacts or that of online features does not answer;
            reset again.
        SourceError: a file cannot be deleted.
    """
    _check_name(use_case)
    running = [str(holder) for holder in records.leases.holders(use_case) if holder.lost is None]
    if running:
        raise Busy(f"{use_case} is at work: {running[0]}; pause its DAGs, wait, then reset")
    now = utc_now()
    records.forget(use_case, entry=AuditEntry("use_case.reset", use_case, use_case, actor, {}, now))
    mlflow_registry.forget(settings, use_case, at=now)
    if settings.online_url.get_secret_value():  # a file is among the paths
        open_store(settings, use_case).remove()
    try:
        for path in _paths(settings, use_case):
            if path.is_dir() and not path.is_symlink():  # what a link points to is not ours
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if is_remote(settings.lake_root):
            _remove_remote(settings, use_case)
        ArtefactStore.of(settings).remove_all(use_case)
        if settings.segments_root:
            SharedPlace(settings.segments_root).remove_all(use_case)
    except OSError as error:
        raise SourceError(
            f"{error.filename or use_case}: cannot be deleted ({explain(error)}); mend that and "
            "reset again"
        ) from None


def _check_name(use_case: str) -> None:
    """Refuse what is no name: it becomes part of paths that are deleted."""
    if not re.fullmatch(NAME.strip("^$"), use_case):
        raise ConfigError(f"{use_case!r} is no use case name; names match {NAME}")


def _paths(settings: Settings, use_case: str) -> list[Path]:
    """Return the folders and files of a use case; a checked name keeps them in the home folder."""
    home = settings.home
    root = Path(settings.store_root)
    store = ArtefactStore.of(settings)
    path = online_path(settings, use_case)
    online = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
    folders = {
        *(home / name / use_case for name in (*KINDS, MODELS, "predictions")),
        *(home / CACHE / prefix for prefix in store.prefixes(use_case)),
        *((root / prefix for prefix in store.prefixes(use_case)) if store.is_local else ()),
        *_bentos(home / "bento", use_case),
    }
    local = [Path(settings.lake_root) / use_case]
    if is_remote(settings.lake_root):
        keep_copies(settings.lake_copies, settings.lake_copies_bytes)
        local = [copies_of(settings.lake_root).folder(use_case)]
    return [*local, *sorted(folders), *online]


def _bentos(folder: Path, use_case: str) -> Iterator[Path]:
    """Yield the Bentos of a use case: no name of one holds a hyphen, so no other's begins alike."""
    yield folder / "bentos" / f"{use_case}_scorer"
    yield folder / "models" / f"{use_case}_model"
    yield from folder.glob(f"exports/{use_case}_scorer-*.bento")
    yield from folder.glob(f"receipts/{use_case}-*.json")


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _remote(settings: Settings, use_case: str) -> float | None:
    """Return the megabytes of a use case in a lake that is no folder; None: there are none."""
    with explained(settings.lake_root, "cannot be listed", _REMEDY):
        system, path = filesystem(f"{settings.lake_root.rstrip('/')}/{use_case}")
        return float(system.du(path)) / 1e6 if system.exists(path) else None


def _remove_remote(settings: Settings, use_case: str) -> None:
    with explained(settings.lake_root, "cannot be deleted in", _REMEDY):
        system, path = filesystem(f"{settings.lake_root.rstrip('/')}/{use_case}")
        if system.exists(path):
            system.rm(path, recursive=True)
