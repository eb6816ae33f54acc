"""Remove files and folders whole: renamed aside first, then deleted.

A reader finds all of it or nothing. What a kill leaves under such a name is found by the next run:
it is deleted, or put back where a record names it after all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

PREFIX = ".collected."


def remove(*paths: Path, still_unneeded: Callable[[], bool] = lambda: True) -> bool:
    """Remove files and folders together; tell whether they are gone.

    They are put back if it turns out, once nobody finds them any more, that somebody needs them.

    Raises:
        OSError: one cannot be removed.
    """
    put_aside: dict[Path, Path] = {}
    for path in paths:
        aside = path.with_name(f"{PREFIX}{path.name}")
        _delete(aside)  # what a kill left of an earlier one of this name
        with contextlib.suppress(FileNotFoundError):
            put_aside[path] = path.rename(aside)
    if not still_unneeded():
        for path, aside in put_aside.items():
            _put_back(aside, path)
        return False
    for aside in put_aside.values():
        _delete(aside)
    return bool(put_aside)


def finish(
    folder: Path,
    is_needed: Callable[[str], bool],
    is_ours: Callable[[str], object] = lambda name: True,
) -> int:
    """Delete what killed runs have put aside in a folder; return how many were deleted.

    What `is_needed`, by its own name, is put back instead; what is not ours is passed over.

    Raises:
        OSError: one cannot be removed.
    """
    deleted = 0
    for aside in sorted(folder.glob(f"{PREFIX}*")):
        name = aside.name.removeprefix(PREFIX)
        if not is_ours(name):
            continue
        if is_needed(name):
            _put_back(aside, folder / name)
        else:
            _delete(aside)
            deleted += 1
    return deleted


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(
            Path(place, name).lstat().st_size for place, _, names in os.walk(path) for name in names
        )
    return path.lstat().st_size


def age_of(path: Path, now: float) -> float:
    """Return for how many seconds nothing was changed directly at a path; `now` is since 1970.

    The time of its name counts too: a folder that was put in place a moment ago may hold old files.
    """
    status = path.lstat()
    return now - max(status.st_mtime, status.st_ctime)


def _put_back(aside: Path, path: Path) -> None:
    """Give something its name back, unless there is a newer one."""
    if path.exists():
        _delete(aside)
    else:
        aside.rename(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
