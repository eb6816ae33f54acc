"""Whether the code on the disk is still the code that this node runs.

After an upgrade under a running node two versions would mix: what is imported or started late comes
from the disk. So a node imports all of its own at its start, and says when it is to be restarted.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from include.config.settings import ROOT

SHOWN = 3  # files that are named


class CodeStamp:
    """What the files of all modules of ours held that this process has imported so far."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._stamps: dict[Path, tuple[tuple[int, int], str]] = {}
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            path = Path(file) if file else None
            if path is not None and path.is_relative_to(root / "include"):
                self._stamps[path] = (_status(path), _digest(path))

    def find_changed(self) -> list[str]:
        """Return the files that hold something else by now, or are gone."""
        changed = []
        for path, (status, digest) in self._stamps.items():
            # A checkout that brings the same bytes again changes the time alone.
            if _status(path) != status and _digest(path) != digest:
                changed.append(path.relative_to(self._root).as_posix())
        return sorted(changed)

    def restart_reason(self) -> str:
        """Return why this node is to be restarted, or "" while it is not."""
        changed = self.find_changed()
        if not changed:
            return ""
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        return (
            "the code on the disk is not what this node runs "
            f"({', '.join(changed[:SHOWN])}{more}); restart the node"
        )


def _status(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
