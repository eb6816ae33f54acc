"""Remove what killed processes left in a folder: no record names it, so its age decides.

In a home a supervisor does so every few minutes. Where none runs, as in containers and on machines
with a worker or a node alone, the nightly collection does it, and the node by itself. In a store
and a shared place of segments that are folders outside of it the nightly collection does. An upload
to an object store is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import stat
import time
from collections.abc import Iterator
from os import stat_result
from pathlib import Path

from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.object_stores import is_remote

log = logging.getLogger(__name__)

LEFT_SECONDS = 24 * 3600.0  # after which what a killed writer left beside a file is nobody's
WALK_SECONDS = 60.0  # for which the folders of a use case outside of the home are walked through
SILENT_SECONDS = 3600.0  # after which a supervisor that wrote no sizes does not run
# As `files.written_aside` names what it writes.
_ASIDE = re.compile(r"\.[0-9a-f]{12}\..+")


def remove_left_behind(home: Path, now: float) -> int:
    """Remove what killed processes left a day ago or longer; return how many files and folders.

    That are files which were written aside and never put in place, and Bentos that were never
    finished. The lake is left out: its tables know what belongs to them.

    Raises:
        OSError: one cannot be removed.
    """
    removed = 0
    for entry in home.iterdir():
        if entry.name == "lake" or entry.is_symlink():
            continue
        removed += sum(_remove_old(*found, now) for found in plain_files(entry))
    for folder in (home / "bento" / "staging").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # its owner has finished meanwhile
            if now - folder.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed


def _remove_old(path: Path, status: stat_result, now: float) -> bool:
    """Remove a file that was written aside long ago; tell whether it was one."""
    if not _ASIDE.fullmatch(path.name) or now - status.st_mtime <= LEFT_SECONDS:
        return False
    path.unlink(missing_ok=True)
    return True


def remove_aside(folder: Path, now: float) -> int:
    """Remove what was written aside at or below a folder a day ago or longer; return how many.

    Raises:
        OSError: one cannot be removed.
    """
    return sum(_remove_old(*found, now) for found in plain_files(folder))


def remove_outside(settings: Settings, use_case: str, now: float) -> None:
    """Do that in what a store and a shared place have of a use case, where these are folders.

    What cannot be removed is logged, and left; so is what a walk of a minute has not come to. Never
    in a lake, whose tables know what belongs to them, wherever it lies.
    """
    removed, until = 0, time.monotonic() + WALK_SECONDS
    try:
        for path, status in _outside(settings, use_case, now):
            removed += _remove_old(path, status, now)
            if time.monotonic() > until:
                log.warning(
                    "%s: its store is large; the rest is looked at in other nights", use_case
                )
                break
    except OSError as error:
        log.warning("%s: what killed processes left is not removed: %s", use_case, error)
    if removed:
        log.info("%s: %d files that killed writers left are removed", use_case, removed)


def _outside(settings: Settings, use_case: str, now: float) -> Iterator[tuple[Path, stat_result]]:
    """Yield the plain files of a use case outside of the home, segments first: they hold rows."""
    if segments := _local(settings.segments_root):
        # Not below: a place that is the lake's too has its tables there.
        for folder in (segments, segments / use_case):
            if folder.is_dir():
                for path in folder.iterdir():
                    yield from plain_files(path) if path.is_file() else ()
    store = ArtefactStore.of(settings)
    if store.is_local and store.root != str(settings.home):
        kinds = store.prefixes(use_case)
        # Where a minute does not do for all, each night begins with others.
        first = int(now // 86400) % len(kinds)
        for below in (*kinds[first:], *kinds[:first]):
            yield from plain_files(Path(store.root) / below)


def _local(root: str) -> Path | None:
    root = root.removeprefix("file://")
    return Path(root) if root and not is_remote(root) else None


def remove_where_unkept(home: Path, now: float) -> None:
    """Do that where no supervisor does; what cannot be removed is logged, and left."""
    with contextlib.suppress(OSError):
        if now - sizes_file(home).stat().st_mtime < SILENT_SECONDS:
            return
    try:
        if removed := remove_left_behind(home, now):
            log.info("%d files and folders that killed processes left are removed", removed)
    except OSError as error:
        log.warning("what killed processes left in %s is not removed: %s", home, error)


def sizes_file(home: Path) -> Path:
    """Return the file in which a supervisor says, every few minutes, how large a home's parts are.

    Who finds it young knows that a supervisor keeps this home.
    """
    return home / "run" / "sizes.json"


def plain_files(root: Path) -> Iterator[tuple[Path, stat_result]]:
    """Yield the plain files at or below a path with their status."""
    for path in [root] if root.is_file() else root.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path, status
        time.sleep(0)  # the threads that look after processes come first
