"""Take a backup: the databases as of one moment, then every file that they name.

The databases come first. Files are never changed in place, and nobody removes one while the backup
holds the lease of the collection: so what a database names is still there when it is read. What is
written later is in no database of the backup, and nothing but room is lost by it. The manifest is
written last. Killed anywhere, the next one finds the pieces that were kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from msgspec import UNSET
from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from include.backups import named, tables
from include.backups.manifest import FORMAT, Dump, File, Manifest, Piece, Table
from include.backups.progress import Progress
from include.backups.repository import Pieces, Repository, file_line, files_of
from include.backups.trees import Listed, Tree, trees_to_read
from include.config.settings import Settings
from include.doctor.findings import first_line, public
from include.errors import ArtefactError, ConfigError, SourceError
from include.installation.airflow_history import EVERYWHERE
from include.models.mlflow_client import may_hold_any
from include.object_stores import store_errors
from include.pipeline.provenance import git_commit
from include.records.columns import Base
from include.records.epochs import read_epoch
from include.records.records import AuditEntry, Lease, Records
from include.records.schema import (
    VERSION_TABLE,
    AuditHead,
    ObservationRow,
    ObservedRow,
    PartitionRow,
    RouteRow,
)
from include.retention import collect_garbage

log = logging.getLogger(__name__)

BEGUN, TAKEN = "backup.begun", "backup.taken"
MLFLOW_VERSIONS = "alembic_version"
# Who serves, and until when that is believed, is not true of the restored installation.
LEFT_OUT = {ObservationRow.__tablename__, ObservedRow.__tablename__}
AT_ONCE = 8  # files that are copied side by side: an object store takes its time for each
WAIT_SECONDS = 600.0  # for a collection that is at work
LISTED = 200  # missing things that an audit row names


def take(
    settings: Settings,
    records: Records,
    pieces: Pieces,
    *,
    at: datetime,
    actor: str,
    say: Callable[[str], object],
    before: Manifest | None = None,
    remedy: str = named.REMEDY,
) -> Manifest:
    """Copy everything into `pieces` and return the manifest, which the caller puts in place.

    `before` is the backup of before: of what never changes only the new is read. `remedy` is that
    of `named.find_missing`; what single things are missing the manifest says.

    Raises:
        Busy: a collection of garbage does not end.
        ConfigError: MLflow is behind a server, whose database cannot be read.
        SourceError: a file, or a place, cannot be read, or lacks all that the records name in it.
    """
    _refuse_server(settings)
    # The newest by its name is the newest by time, also of two within a second.
    name = f"{at:%Y%m%dT%H%M%SZ}-{at.microsecond:05x}{secrets.token_hex(2)}"
    owner = f"backup@{socket.gethostname()}:{os.getpid()}"
    with ExitStack() as held:
        use_cases = _use_cases(records)
        leases = [
            held.enter_context(
                records.leases.claim(
                    use_case,
                    collect_garbage.NAME,
                    "all",
                    owner=owner,
                    attempt=1,
                    ttl=settings.lease_seconds,
                    wait=WAIT_SECONDS,
                )
            )
            for use_case in use_cases
        ]
        missing = named.find_missing(settings, records, use_cases, remedy=remedy)
        # The mark: it is the newest row of the log in the backup.
        records.audit.append(AuditEntry(BEGUN, EVERYWHERE, name, actor, {}, at, f"{BEGUN}/{name}"))
        databases = _dump_all(settings, records, pieces, say)
        listed, counted = _Counted(), Progress("files", say)
        files = _copy_all(trees_to_read(settings), pieces, _known(pieces, before), counted)
        _, list_of_files = pieces.keep_text(file_line(file) for file in listed.through(files))
        counted.end()
        for lease in leases:
            lease.check()  # or a collection may have taken what is named
    manifest = Manifest(
        format=FORMAT,
        name=name,
        at=at.isoformat(),
        version=git_commit(),
        files=list_of_files,
        file_count=listed.count,
        file_bytes=listed.bytes,
        use_cases=tuple(use_cases),
        home=str(settings.home),
        entity_key=fingerprint(settings),
        missing=tuple(missing) or UNSET,
        **databases,
    )
    log.info("backup %s: %d files, %d bytes", name, listed.count, listed.bytes)
    return manifest


def newest_of(repository: Repository, say: Callable[[str], object]) -> Manifest | None:
    """Return the backup of before, None where there is none that can be read."""
    try:
        return repository.manifest() if repository.names() else None
    except ArtefactError as error:
        say(f"note: {error}; all files are read anew")
        return None


def refuse_inside(settings: Settings, repository: Repository) -> None:
    """Refuse to keep backups in what they are of: each would hold the one before.

    Raises:
        ConfigError: it lies there.
    """
    for tree in trees_to_read(settings):
        for folder in tree.folders:
            place = f"{tree.root}/{folder}".rstrip("/")
            if f"{repository.tree.root}/".startswith(f"{place}/"):
                raise ConfigError(
                    f"{public(repository.tree.root)} is part of what is backed up ({tree.name}): "
                    "name a place beside it, on another disk"
                )


def only_one(settings: Settings, records: Records) -> Lease:
    """Return the right to take backups and to remove older ones: pieces are shared.

    Raises:
        Busy: another process has it.
    """
    owner = f"backup@{socket.gethostname()}:{os.getpid()}"
    return records.leases.claim(
        EVERYWHERE, "backup", "all", owner=owner, attempt=1, ttl=settings.lease_seconds
    )


def put_on_record(records: Records, manifest: Manifest, actor: str, at: datetime) -> None:
    """Write the audit row of a backup that is in place."""
    details: dict[str, Any] = {
        "files": manifest.file_count,
        "bytes": manifest.file_bytes,
        "epoch": manifest.epoch,
        "audit": list(manifest.audit),
    }
    if manifest.missing:
        details["missing"] = list(manifest.missing[:LISTED])
    once = f"{TAKEN}/{manifest.name}"
    records.audit.append(AuditEntry(TAKEN, EVERYWHERE, manifest.name, actor, details, at, once))


def fingerprint(settings: Settings) -> str:
    """Return what tells two keys of entities apart and tells neither; "" where there is none.

    It must not make one.
    """
    is_given = bool(settings.entity_key.get_secret_value())
    if not is_given and not settings.secret_path("entity_key").exists():
        return ""
    secret = settings.entity_secret.get_secret_value()
    return hashlib.sha256(f"evergreen entity key {secret}".encode()).hexdigest()[:16]


def _refuse_server(settings: Settings) -> None:
    if settings.mlflow_address.startswith(("http://", "https://")):
        raise ConfigError(
            "EVERGREEN_MLFLOW_URI names a server: set it to the database behind that server, so "
            "that runs and models are part of the backup"
        )


def _use_cases(records: Records) -> list[str]:
    """Return the names of all use cases that anything is on record of."""

    def read(session: Session) -> list[str]:
        names: set[str] = set()
        for table in (RouteRow, PartitionRow):
            names |= set(session.scalars(select(table.use_case).distinct()))
        return sorted(names)

    return records.database.read(read)


def _dump_all(
    settings: Settings, records: Records, pieces: Pieces, say: Callable[[str], object]
) -> dict[str, Any]:
    """Return both databases as of one moment, with the epoch and the end of the audit log."""
    with ExitStack() as stack:
        mlflow: Connection | None = None

        def read(session: Session) -> dict[str, Any]:
            nonlocal mlflow
            tables.allow_idleness(session.connection())
            end = session.get_one(AuditHead, 1)
            found = {"epoch": read_epoch(session), "audit": (end.sequence, end.hash)}
            # Opened while this snapshot stands: MLflow shows what is on record, so it comes after.
            if may_hold_any(settings):
                mlflow = stack.enter_context(tables.snapshot(settings.mlflow_address))
            names = [name for name in Base.metadata.tables if name not in LEFT_OUT]
            connection = session.connection()
            return found | {"records": _dump(connection, VERSION_TABLE, names, pieces, say)}

        found = records.database.read(read)
        dump = None
        if mlflow is not None:
            names = [
                table.name
                for table in tables.reflected(mlflow).sorted_tables
                if table.name != MLFLOW_VERSIONS
            ]
            dump = _dump(mlflow, MLFLOW_VERSIONS, names, pieces, say)
        return found | {"mlflow": dump}


def _dump(
    connection: Connection,
    version_table: str,
    names: Iterable[str],
    pieces: Pieces,
    say: Callable[[str], object],
) -> Dump:
    found, metadata = dict[str, Table](), tables.reflected(connection)
    for name in names:
        counted = Progress(f"rows of {name}", say)
        lines = counted.through(tables.lines(connection, metadata.tables[name]))
        count, piece = pieces.keep_text(lines)
        found[name] = Table(count - 1, piece)  # the first line names the columns
        counted.end(quiet=True)
    rows = sum(table.rows for table in found.values())
    say(f"{rows} rows of {len(found)} tables")
    return Dump(tables.revision_of(connection, version_table), found)


def _known(pieces: Pieces, before: Manifest | None) -> dict[tuple[str, str, int], str]:
    """Return the digests of the files of the backup of before that never change."""
    if before is None or not isinstance(pieces, Repository):
        return {}
    try:
        return {
            (file.tree, file.path, file.bytes): file.digest
            for file in files_of(pieces, before)
            if file.immutable
        }
    except ArtefactError as error:
        log.warning("%s; all files are read anew", error)
        return {}


def _copy_all(
    trees: Iterable[Tree],
    pieces: Pieces,
    known: dict[tuple[str, str, int], str],
    counted: Progress,
) -> Iterator[File]:
    def copy(tree: Tree, listed: Listed) -> File | None:
        digest = known.get((tree.name, listed.path, listed.bytes))
        piece = Piece(digest or "", listed.bytes)
        try:
            if digest is None or not pieces.has(piece):
                piece = pieces.keep(tree, listed.path)
        except FileNotFoundError:
            if tree.fleeting:
                return None
            raise SourceError(
                f"{tree.name}: {listed.path} went while it was to be read; run it again"
            ) from None
        except store_errors() as error:
            raise SourceError(
                f"{tree.name}: {listed.path} cannot be kept ({first_line(error)}); mend that, "
                "then run it again"
            ) from None
        return File(tree.name, listed.path, piece.digest, piece.bytes, listed.immutable)

    seen: set[tuple[str, str]] = set()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="backup") as pool:
        for tree in trees:
            for part in _parts(tree.files(), AT_ONCE * 16):
                for file in pool.map(copy, [tree] * len(part), part):
                    # A segment that is shipped meanwhile stands in two places.
                    if file is None or (file.tree, file.path) in seen:
                        continue
                    if tree.fleeting:
                        seen.add((file.tree, file.path))
                    counted.add(file.bytes)
                    yield file


def _parts(listed: Iterator[Listed], size: int) -> Iterator[list[Listed]]:
    from itertools import islice

    while part := list(islice(listed, size)):
        yield part


class _Counted:
    """Counts the files that go through, and their bytes."""

    def __init__(self) -> None:
        self.count = self.bytes = 0

    def through(self, files: Iterable[File]) -> Iterator[File]:
        for file in files:
            self.count, self.bytes = self.count + 1, self.bytes + file.bytes
            yield file
