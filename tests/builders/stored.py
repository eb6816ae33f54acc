"""Finds lake tables whose names carry the digest of their columns."""

from __future__ import annotations

from pathlib import Path

from include.lake.tables import Lake


def table(lake: Lake, base: str) -> str:
    """Return the one table of this name, with or without a digest of its columns."""
    folder = Path(lake.root, base)
    (found,) = [
        path
        for path in folder.parent.glob(f"{folder.name}*")
        if path.name.split("@")[0] == folder.name
    ]
    return str(found.relative_to(lake.root))
