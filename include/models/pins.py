"""Serving pins: what must be equal for a bundle to load in another process of ours.

A node loads a model into itself only if the model's pins are its own; another model runs as its
Bento, in a process with its own libraries and code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from include.models.kinds import ModelKind, every_kind
from include.syntax import file_digest

ROOT = Path(__file__).resolve().parents[2]  # the settings would double the start of a trial
# What turns a bundle and a row into a score, whatever the kind; the registry of kinds does not.
COMMON = (
    "include/models/bundle.py",
    "include/models/calibration.py",
    "include/models/encoding.py",
    "include/models/golden.py",
    "include/texts.py",
)


def serving_pins(kind: ModelKind) -> str:
    """Return the digest of the Python, the libraries and the code by which a kind's models answer.

    Of the code the syntax tree counts: a comment would otherwise send every model that is served
    into a process of its own until it is trained again.
    """
    return _digest(kind.name, kind.requirements, (*COMMON, *kind.modules))


@lru_cache(maxsize=8)  # of what this process runs: a file that changes later is not what it runs
def _digest(kind: str, libraries: tuple[str, ...], modules: tuple[str, ...]) -> str:
    content = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "kind": kind,
        "libraries": {name: version(name) for name in libraries},
        "code": {path: file_digest(ROOT / path) for path in modules},
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fits_here(pins: str | None) -> bool:
    """Tell whether a model with these pins loads in this process; one without any does not."""
    return pins is not None and any(pins == serving_pins(kind) for kind in every_kind())
