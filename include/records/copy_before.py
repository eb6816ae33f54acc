"""A copy of a database file as it was before an upgrade changed it, beside the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from include.errors import ConfigError
from include.files import written_aside


def copy_before(path: Path, version: str) -> Path:
    """Copy a database file as it is committed, and return the copy; the one of before that goes.

    `version` is that of its tables. Whoever is at work on the file does not hinder it.

    Raises:
        ConfigError: the copy cannot be written.
    """
    kept = path.with_name(f"{path.name}.before-{version}")
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
