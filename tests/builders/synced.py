"""What is forced to the disk, in this order, and which names a folder had at that moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Synced:
    """Sees each fsync of this process, which is done all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: list[tuple[Path, list[str]]] = []
        fsync = os.fsync

        def seen(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            self._seen.append((path, sorted(os.listdir(path)) if path.is_dir() else []))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", seen)

    @property
    def names(self) -> list[str]:
        """The names of files and folders, as they were synced."""
        return [path.name for path, _ in self._seen]

    def seen_in(self, folder: Path) -> list[list[str]]:
        """Return the names in a folder at each of its syncs."""
        return [names for path, names in self._seen if path == folder]
