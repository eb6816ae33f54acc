"""Copies of artefacts on this machine, for where the store is no folder.

An entry is verified by its digest whenever it is taken; one that was damaged is fetched again. Two
processes at once each put whole entries in place. What was used longest ago goes once all together
are too large: who takes an artefact once, and may need it again, marks it as used now and then.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from include.artefacts.address import IMMUTABLE, Address
from include.artefacts.entry import Entry
from include.artefacts.folder import PREFIX, REMOVED, Folder, remove_whole
from include.artefacts.manifest import NAME

FOLDER = "cache"  # in the home folder
USED_SECONDS = 3600.0  # for so long somebody may read what was taken
LEFT_SECONDS = 24 * 3600.0  # after which what is half written is a killed process'


class Cache(Folder):
    """The copies below HOME/cache."""

    def __init__(self, home: Path, most_bytes: int) -> None:
        """Build it; `most_bytes` is what all copies may take together."""
        super().__init__(home / FOLDER)
        self._most_bytes = most_bytes

    def mark_used(self, address: Address) -> None:
        """Note that an entry was taken just now, or is still needed."""
        with contextlib.suppress(OSError):  # another process has removed it, or nobody may write
            os.utime(self.path_of(address) / NAME)

    def trim(self, keep: Address) -> list[str]:
        """Remove what was used longest ago, until the rest fits; return their addresses.

        `keep`, and what was used within the hour, stays however large. So does what another process
        is about to put in place, unless it is a day old: nobody writes for so long.
        """
        now, removed = time.time(), list[str]()
        self._remove_scratch(now)
        entries = sorted((self._used(each), each) for each in self._all())
        size = sum(each.bytes for _, each in entries)
        for used, entry in entries:
            if entry.name.startswith((PREFIX, REMOVED)):
                idle = LEFT_SECONDS
            elif size <= self._most_bytes or entry.uri == str(keep):
                continue
            else:
                idle = USED_SECONDS
            if now - used > idle:
                with contextlib.suppress(OSError):
                    remove_whole(self.root / entry.kind / entry.use_case / entry.name)
                    size -= entry.bytes
                    removed.append(f"{entry.kind}/{entry.use_case}/{entry.name}")
        return removed

    def _remove_scratch(self, now: float) -> None:
        """Remove what killed processes left of artefacts that are written straight to the store."""
        for prefix in (PREFIX, REMOVED):
            for path in self.root.glob(f"{prefix}*"):
                with contextlib.suppress(OSError):
                    if now - path.lstat().st_mtime > LEFT_SECONDS:
                        remove_whole(path)

    def _all(self) -> Iterator[Entry]:
        for kind in IMMUTABLE:
            folder = self.root / kind
            for place in sorted(folder.iterdir()) if folder.is_dir() else ():
                yield from self.entries(kind, place.name)

    def _used(self, entry: Entry) -> float:
        path = self.root / entry.kind / entry.use_case / entry.name / NAME
        try:
            return path.stat().st_mtime
        except OSError:
            return entry.written
