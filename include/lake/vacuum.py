"""Delete files of versioned tables that no kept version of their table needs.

A partition that is replaced leaves its old files behind, and a killed writer files that no version
ever named. A version stays readable whole as long as somebody pins it. delta-rs lists and deletes;
which few versions it has to be told to keep is found in the table's log, since it loads each of
them, and a table has as many pinned versions as there were trainings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from include.errors import Busy, SourceError
from include.lake.opened import open_table
from include.lake.tables import Lake
from include.object_stores import explain, explained, filesystem, is_remote, shown

KEPT_HOURS = 48  # for so long a reader, or a writer before its commit, may still need a file
LOG = "_delta_log"
LOGS_AT_ONCE = 200  # entries of a log that are held at a time


class _Life(NamedTuple):
    """From which version of a table on a file was part of it, and before which it was not again."""

    added: int
    removed: int
    bytes: int


@dataclass(frozen=True)
class Unneeded:
    """Files of a table that can go, with their size, and versions that keep all that cannot."""

    table: str
    files: list[str]
    bytes: int
    keep: list[int]


def tables_below(lake: Lake, folder: str) -> list[str]:
    """Return the names of the tables under a folder of the lake, sorted."""
    with _listed(lake.root):
        system, root = filesystem(lake.root)
        start = f"{root.rstrip('/')}/{folder}"
        if not system.exists(start):
            return []
        found = {path.partition(f"/{LOG}")[0] for path in system.glob(f"{start}/**/{LOG}/*.json")}
    return sorted(path[len(root.rstrip("/")) + 1 :] for path in found)


def find_unneeded(
    lake: Lake, table: str, pinned: Callable[[], Iterable[int]], *, hours: int = KEPT_HOURS
) -> Unneeded | None:
    """Return the files of a table that can go; None: there are none.

    `pinned` gives the versions that must stay readable; it is asked only where any file could go.
    Files that were replaced, or written, less than `hours` ago stay.
    """
    handle = open_table(lake.uri(table))
    if handle is None:
        return None
    with _listed(lake.uri(table)):
        listed = _vacuum(handle, hours, dry_run=True)
        present = _sizes(lake, table, listed) if listed else {}
        if not present:
            return None
        lives = _read_lives(lake, table, set(present))
    keep = sorted(_covering(lives.values(), sorted(set(pinned()))))
    needed = {
        path
        for path, life in lives.items()
        if any(life.added <= version < life.removed for version in keep)
    }
    files = sorted(present.keys() - needed)
    if not files:
        return None
    return Unneeded(table, files, sum(present[path] for path in files), keep)


def remove_unneeded(lake: Lake, unneeded: Unneeded, *, hours: int = KEPT_HOURS) -> None:
    """Delete the files that `find_unneeded` has found; what is gone already is passed over.

    Raises:
        Busy: another writer was faster.
        SourceError: the storage cannot be written.
    """
    try:
        handle = open_table(lake.uri(unneeded.table))
        if handle is None:  # reset meanwhile
            return
        _vacuum(handle, hours, dry_run=False, keep=unneeded.keep)
    except CommitFailedError as error:
        raise Busy(f"{unneeded.table}: another writer was faster; run it again") from error
    except (OSError, DeltaError) as error:
        raise SourceError(
            f"{shown(lake.uri(unneeded.table))}: files cannot be deleted ({explain(error)}); "
            "check that the storage answers, and its permissions"
        ) from None


def _listed(uri: str) -> AbstractContextManager[None]:
    """Raise what the storage says when it cannot be listed as a SourceError."""
    return explained(uri, "cannot be listed", "check that it answers, and its permissions")


def _vacuum(
    handle: DeltaTable, hours: int, *, dry_run: bool, keep: list[int] | None = None
) -> list[str]:
    """List or delete the files that neither the newest nor a kept version names."""
    names: list[str] = handle.vacuum(
        retention_hours=hours,
        enforce_retention_duration=False,
        dry_run=dry_run,
        # What checkpoints have forgotten, and what no version ever named, too.
        full=True,
        keep_versions=keep or None,
    )
    return names


def _covering(lives: Iterable[_Life], pinned: list[int]) -> set[int]:
    """Return few of the pinned versions that name every file which any of them names."""
    chosen: set[int] = set()
    for life in lives:
        within = [version for version in pinned if life.added <= version < life.removed]
        if within and not chosen.intersection(within):
            chosen.add(within[-1])
    return chosen


def _read_lives(lake: Lake, table: str, paths: set[str]) -> dict[str, _Life]:
    """Return the lives of some files; one that no version ever named has none."""
    lives: dict[str, _Life] = {}
    for version, action, content in _actions(lake, table):
        path = unquote(content["path"])
        if path not in paths:
            continue
        if action == "add":
            lives[path] = _Life(version, 1 << 62, int(content.get("size") or 0))
        else:
            # Its beginning may be older than the log.
            before = lives.get(path, _Life(0, version, 0))
            lives[path] = before._replace(removed=version)
    return lives


def _actions(lake: Lake, table: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield version, kind and content of every change of files that a table's log tells of."""
    system, folder = filesystem(f"{lake.uri(table)}/{LOG}")
    paths = {
        int(name): path
        for path in system.glob(f"{folder}/*.json")
        if (name := path.rpartition("/")[2].removesuffix(".json")).isdigit()
    }
    listed = sorted(paths)
    for start in range(0, len(listed), LOGS_AT_ONCE):
        versions = listed[start : start + LOGS_AT_ONCE]
        # A store is asked for many at once, which is mostly waiting.
        read = system.cat([paths[version] for version in versions])
        for version in versions:
            for line in read[paths[version]].splitlines():
                # Most lines of a table's first commits are statistics; these words stand first.
                if not line.startswith((b'{"add"', b'{"remove"')):
                    continue
                ((action, content),) = json.loads(line).items()
                yield version, action, content


def _sizes(lake: Lake, table: str, listed: Iterable[str]) -> dict[str, int]:
    """Return the sizes of those of some files that are there: of a vacuum before, some are not."""
    system, folder = filesystem(lake.uri(table))
    sizes: dict[str, int] = {}
    if is_remote(lake.root):  # one list in place of a question a file
        there = system.find(folder, detail=True)
        named = {unquote(name) for name in listed}
        start = len(folder.rstrip("/")) + 1
        return {
            path[start:]: int(info["size"]) for path, info in there.items() if path[start:] in named
        }
    for name in listed:
        try:
            sizes[unquote(name)] = int(system.info(f"{folder}/{unquote(name)}")["size"])
        except FileNotFoundError:
            continue
    return sizes
