"""Bundles on disk, for tests that damage them and try them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from include.models.bundle import SCHEMA, verify_bundle
from include.models.kinds import kind_in
from include.models.pins import serving_pins
from include.serving.trials import try_model


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files of a bundle into a new folder and return it."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def try_bundle(folder: str | Path, digest: str, *, seconds: float = 60.0) -> None:
    """Have a bundle verified, then tried in a process of its own, as the node does."""
    files = verify_bundle(folder, digest)
    pins = serving_pins(kind_in(files[SCHEMA]))
    asyncio.run(try_model(str(folder), digest, pins, seconds=seconds))
