"""A copy of a database file as it was before an upgrade changed it, beside the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from include.errors import ConfigError
from include.files import written_aside


def copy_before(path: Path, version: str, *, revisions: str | None = None) -> Path:
    """Copy a database file as it is committed, and return the copy; the one of before that goes.

    `version` is that of its tables. Whoever is at work on the file does not hinder it.
    `revisions` is the table in which a migration of several transactions says how far it is: where
    one was killed on its way, the copy that it had made first stays.

    Raises:
        ConfigError: the copy cannot be written.
    """
    kept = path.with_name(f"{path.name}.before-{version}")
    if revisions is not None and kept.exists():
        before = _revision(kept, revisions)
        if before is not None and before != _revision(path, revisions):
            return kept
    try:
        with (
            written_aside(kept, mode=0o600, durable=True) as aside,
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(aside)) as target,
        ):
            source.backup(target)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"{path} is to be brought to this version, and the copy of it that is made first, "
            f"{kept}, cannot be written ({error}); free some space or mend its owner"
        ) from error
    for older in path.parent.glob(f"{path.name}.before-*"):
        if older != kept:
            older.unlink(missing_ok=True)
    return kept


def _revision(path: Path, table: str) -> str | None:
    """Return how far the tables of a file are migrated, None where it does not say."""
    try:
        with closing(sqlite3.connect(path)) as con:
            row = con.execute(f"SELECT version_num FROM {table}").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])
