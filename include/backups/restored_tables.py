"""Load the tables of a backup, each database in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, MetaData, delete, func, insert, select

from include.backups import tables
from include.backups.manifest import Dump, Manifest
from include.backups.progress import Progress
from include.backups.repository import Pieces, lines_of
from include.backups.take import LEFT_OUT, MLFLOW_VERSIONS
from include.backups.trees import Tree
from include.config.settings import Settings
from include.errors import ArtefactError, ConfigError
from include.installation.databases import mlflow_owner_address
from include.models import mlflow_client

# Tag of MLflow's first experiment: what was loaded here. Not the backup's name: each move takes one
# of its own, and of a newer one of a nightly backup the rows may well be the same.
_MARK = "evergreen.restored"
# Columns of MLflow that say where files are.
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
_ARTEFACTS = "/mlartifacts/"


def load_all(
    connection: Connection,
    metadata: MetaData,
    pieces: Pieces,
    dump: Dump,
    change: tables.Change,
    say: Callable[[str], object],
) -> int:
    missing = sorted(set(dump.tables) - set(metadata.tables))
    if missing:
        raise ConfigError(
            f"the backup has tables that are not here: {', '.join(missing)}; restore it with the "
            "version that took it"
        )
    total = 0
    for table in metadata.sorted_tables:
        if table.name not in dump.tables or table.name in LEFT_OUT:
            continue
        told = dump.tables[table.name]
        counted = Progress(f"rows of {table.name}", say)
        lines = counted.through(lines_of(pieces, told.piece, f"table {table.name}"))
        loaded = tables.load(connection, table, lines, change)
        if loaded != told.rows:
            raise ArtefactError(
                f"table {table.name} of the backup has {loaded} rows, {told.rows} are named; take "
                "another backup"
            )
        total += loaded
    tables.set_sequences(connection, metadata, dump.tables)
    return total


def load_mlflow(
    settings: Settings,
    pieces: Pieces,
    manifest: Manifest,
    dump: Dump,
    store: Tree,
    say: Callable[[str], object],
) -> None:
    """Load MLflow's tables, with the places of their files as they are here."""
    with mlflow_client.connected(settings):
        pass  # it makes its tables
    root = store.root if "://" in store.root else Path(store.root).as_uri()

    def change(name: str, row: dict[str, Any]) -> dict[str, Any]:
        for column in _PLACES.get(name, ()):
            place = row.get(column)
            if isinstance(place, str) and _ARTEFACTS in place:
                row[column] = f"{root}{_ARTEFACTS}{place.rpartition(_ARTEFACTS)[2]}"
        return row

    # As the owner, where there is one: sequences are set by it alone.
    with tables.transaction(mlflow_owner_address(settings)) as connection:
        present = tables.revision_of(connection, MLFLOW_VERSIONS)
        if present != dump.revision:
            raise ConfigError(
                f"the backup's MLflow tables are of {dump.revision}, those here of {present}: "
                "restore with the MLflow that made them, then update"
            )
        metadata = tables.reflected(connection)
        marks = metadata.tables["experiment_tags"]
        marked = select(marks.c.value).where(marks.c.key == _MARK)
        loaded = _digest_of(dump, root)
        # Versions before wrote the name.
        if connection.execute(marked).scalar() in (loaded, manifest.name):
            return  # an earlier try came so far
        _refuse_runs(connection, metadata, settings)
        for table in reversed(metadata.sorted_tables):
            if table.name != MLFLOW_VERSIONS:
                connection.execute(delete(table))
        load_all(connection, metadata, pieces, dump, change, say)
        first = connection.execute(
            select(func.min(metadata.tables["experiments"].c.experiment_id))
        ).scalar()
        connection.execute(delete(marks).where(marks.c.key == _MARK))
        if first is not None:
            mark = {"key": _MARK, "value": loaded, "experiment_id": first}
            connection.execute(insert(marks), [mark])


def _digest_of(dump: Dump, root: str) -> str:
    """Return what tells the rows of a dump, with the places of their files at a root, from others.

    Equal rows are equal pieces, whichever backup they are of.
    """
    encoded = msgspec.json.encode((dump, root), order="deterministic")
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _refuse_runs(connection: Connection, metadata: MetaData, settings: Settings) -> None:
    filled = [
        name
        for name in ("runs", "registered_models")
        if tables.count(connection, metadata.tables[name])
    ]
    if filled:
        where = mlflow_client.public_address(settings.mlflow_address)
        raise ConfigError(
            f"MLflow's database at {where} has {' and '.join(filled)} already: name an empty "
            "one in EVERGREEN_MLFLOW_URI"
        )
