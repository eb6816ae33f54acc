"""Restore a backup into an empty installation, which begins the next epoch.

Files come first, each compared with its digest; then MLflow's database, then the records, each in
one transaction. The records are the last: until they are there nothing is restored, and whoever was
killed runs it again. What is in place by then, with the right bytes, is not copied a second time.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from include.backups import tables
from include.backups.manifest import File, Manifest, Piece
from include.backups.named import told
from include.backups.placed import bytes_of, is_other, place_of
from include.backups.progress import Progress
from include.backups.repository import Pieces, copy_verified, files_of
from include.backups.restored_tables import load_all, load_mlflow
from include.backups.take import AT_ONCE, fingerprint
from include.backups.trees import KEYS, KINDS, PIECE, Tree, trees_to_write
from include.config.settings import Settings
from include.doctor.findings import first_line, public
from include.errors import ArtefactError, ConfigError, SourceError
from include.installation.airflow_history import EVERYWHERE
from include.models.public_keys import merge_keys
from include.object_stores import store_errors
from include.records import audit
from include.records.epochs import RESTORED, begin_next
from include.records.records import AuditEntry, Records
from include.records.schema import (
    HEAD,
    AuditHead,
    AuditRow,
    EpochRow,
    LeaseRow,
    ModelRow,
    PartitionRow,
    ResultRow,
    RouteRow,
)

log = logging.getLogger(__name__)


@dataclass
class Restored:
    """What a restore came to; `notes` are what a person should know or do."""

    epoch: int
    rows: int
    files: int
    copied: int
    champions: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def restore(
    settings: Settings,
    records: Records,
    pieces: Pieces,
    manifest: Manifest,
    *,
    at: datetime,
    actor: str,
    say: Callable[[str], object],
    origin: str,
) -> Restored:
    """Bring a backup into the installation of these settings, whose records are migrated.

    `origin` says in the audit row where it came from.

    Raises:
        ConfigError: something is there already, or the backup is of another version.
        ArtefactError: a piece does not have its digest; the records are as they were.
        SourceError: a place cannot be read or written.
    """
    if manifest.records.revision != HEAD:
        raise ConfigError(
            f"backup {manifest.name} is of records {manifest.records.revision}, this code has "
            f"{HEAD}: restore it with the version that took it ({manifest.version}), then update"
        )
    refuse_filled(settings, records, pieces, manifest)
    trees = trees_to_write(settings)
    copied = _copy_all(pieces, manifest, trees, say)
    if manifest.mlflow is not None:
        load_mlflow(settings, pieces, manifest, manifest.mlflow, trees["store"], say)
    made = _load_records(settings, records, pieces, manifest, at, actor, origin, say)
    made.files, made.copied = manifest.file_count, copied
    if manifest.missing:
        made.notes.append(f"the backup lacks what its records name: {told(manifest.missing)}")
    if manifest.entity_key and fingerprint(settings) != manifest.entity_key:
        made.notes.append(
            "the key that hashes entities is another one than before: predictions of both times "
            "do not join by a hashed entity; put the old EVERGREEN_ENTITY_KEY in place to keep them"
        )
    return made


def refuse_filled(settings: Settings, records: Records, pieces: Pieces, manifest: Manifest) -> None:
    """Refuse an installation that holds anything but what an earlier try of this has left.

    Raises:
        ConfigError: it does; nothing was changed.
    """
    filled = _counts(records)
    if filled:
        rows = ", ".join(f"{count} rows of {name}" for name, count in filled.items())
        raise ConfigError(
            f"{records.database.name} is not empty ({rows}): restore into a new database and home, "
            "or `evergreen reset` each use case and name another database"
        )
    for tree in trees_to_write(settings).values():
        if tree.fleeting:
            continue  # a node that runs may have written its own
        strange = _strange(tree, pieces, manifest)
        if strange:
            raise ConfigError(
                f"{public(tree.root)} holds what the backup does not name ({strange[0]}"
                f"{' and more' if len(strange) > 1 else ''}): name an empty place for the "
                f"{tree.name}, or move it aside"
            )


def _counts(records: Records) -> dict[str, int]:
    watched = (RouteRow, PartitionRow, ResultRow, ModelRow, AuditRow)

    def read(session: Session) -> dict[str, int]:
        return {
            table.__tablename__: count
            for table in watched
            if (count := session.scalar(select(func.count()).select_from(table)))
        }

    return records.database.read(read)


def _strange(tree: Tree, pieces: Pieces, manifest: Manifest) -> list[str]:
    there = {each.path for each in tree.files()}
    if there:
        for file in files_of(pieces, manifest):
            if file.tree == tree.name:
                there.discard(place_of(tree, file.path))
    return sorted(there)


def _copy_all(
    pieces: Pieces, manifest: Manifest, trees: dict[str, Tree], say: Callable[[str], object]
) -> int:
    """Put every file in place; return how many were not there."""

    def copy(file: File) -> bool:
        tree, piece = trees[file.tree], Piece(file.digest, file.bytes)
        path, what = place_of(tree, file.path), f"{file.tree}/{file.path} of the backup"
        try:
            if file.tree == KEYS:
                return _add_key(pieces, piece, tree, path, what)
            if is_other(tree, file.path):
                return _write_otherwise(pieces, piece, tree, path, what)
            if tree.size_of(path) == file.bytes and _digest_in(tree, path) == file.digest:
                return False
            with pieces.open(piece) as source, tree.written(path) as target:
                copy_verified(source, target, piece, what)
        except store_errors() as error:
            raise SourceError(
                f"{public(tree.root)}: {file.path} cannot be written ({first_line(error)}); mend "
                "that, then run it again: it goes on where it ended"
            ) from None
        return True

    counted, copied = Progress("files", say), 0
    files = files_of(pieces, manifest)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="restore") as pool:
        while part := list(islice(files, AT_ONCE * 16)):
            unknown = {file.tree for file in part} - trees.keys()
            if unknown:
                raise ConfigError(f"the backup has {unknown.pop()!r}, which this version knows not")
            for file, was_copied in zip(part, pool.map(copy, part), strict=True):
                copied += was_copied
                counted.add(file.bytes)
    counted.end()
    return copied


def _add_key(pieces: Pieces, piece: Piece, tree: Tree, path: str, what: str) -> bool:
    """Add what a file of the public keys says to what is there; tell whether there was none.

    A key that was revoked here since the backup stays revoked.
    """
    verified, is_new = io.BytesIO(), tree.size_of(path) is None
    with pieces.open(piece) as source:
        copy_verified(source, verified, piece, what)
    merge_keys(Path(tree.root), {path: verified.getvalue()})
    return is_new


def _write_otherwise(pieces: Pieces, piece: Piece, tree: Tree, path: str, what: str) -> bool:
    """Write a file whose bytes are others here; tell whether they were not there."""
    verified = io.BytesIO()
    with pieces.open(piece) as source:
        copy_verified(source, verified, piece, what)
    content = bytes_of(path, verified.getvalue())
    if tree.size_of(path) == len(content):
        with tree.read(path) as there:
            if there.read() == content:
                return False
    with tree.written(path) as target:
        target.write(content)
    return True


def _digest_in(tree: Tree, path: str) -> str:
    digest = hashlib.sha256()
    with tree.read(path) as file:
        while part := file.read(PIECE):
            digest.update(part)
    return digest.hexdigest()


def _load_records(
    settings: Settings,
    records: Records,
    pieces: Pieces,
    manifest: Manifest,
    at: datetime,
    actor: str,
    origin: str,
    say: Callable[[str], object],
) -> Restored:
    """Load the records, begin the next epoch, and let the audit log say so; all or nothing."""

    def change(name: str, row: dict[str, Any]) -> dict[str, Any]:
        if name == LeaseRow.__tablename__:
            row["claim"] = None  # its token stays: the tables of the lake remember it
        elif name in (ModelRow.__tablename__, ResultRow.__tablename__):
            return {column: _moved(value, manifest.home, settings) for column, value in row.items()}
        return row

    with records.transaction() as session:
        connection = session.connection()
        tables.allow_idleness(connection)
        metadata = tables.reflected(connection)
        for table in (AuditHead, EpochRow, LeaseRow):
            session.execute(delete(table))
        rows = load_all(connection, metadata, pieces, manifest.records, change, say)
        fault = audit.first_fault(session, manifest.audit)
        if fault is not None:
            raise ArtefactError(
                f"the audit log of backup {manifest.name} is broken: row {fault.sequence} "
                f"{fault.reason}; take another backup"
            )
        session.expire_all()
        epoch = begin_next(session, backup=manifest.name, at=at)
        details = {
            "backup": manifest.name,
            "taken_at": manifest.at,
            "from": public(origin),
            "epoch": epoch,
            "rows": rows,
            "files": manifest.file_count,
            "audit": list(manifest.audit),
        }
        once = f"{RESTORED}/{manifest.name}/{epoch}"
        audit.append(
            session, AuditEntry(RESTORED, EVERYWHERE, manifest.name, actor, details, at, once)
        )
    say(f"{rows} rows of the records; epoch {epoch}")
    return Restored(epoch, rows, 0, 0)


def _moved(value: Any, old: str, settings: Settings) -> Any:
    """Return text in which paths below the old home are where their files are now.

    Rows of versions before hold paths where those of today hold addresses.
    """
    if not isinstance(value, str) or f"{old}/" not in value:
        return value
    roots = dict.fromkeys(KINDS, settings.store_root)

    def new(match: re.Match[str]) -> str:
        kind = match[2]
        return f"{match[1]}{roots.get(kind, str(settings.home))}/{kind}"

    # At the beginning of the text, or of a string in JSON.
    return re.sub(rf'(^|"){re.escape(old)}/([^/"]+)', new, value)
