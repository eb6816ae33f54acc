"""Bundles on disk, for tests that damage them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files of a bundle into a new folder and return it."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
