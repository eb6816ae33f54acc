"""Whether the files of a bundle are there at all: what is away may come back, what is wrong not."""

from __future__ import annotations

from pathlib import Path

from include.errors import ArtefactError
from include.models.bundle import GOLDEN, SCHEMA
from include.models.kinds import kind_in


def is_away(folder: str | Path) -> bool:
    """Tell whether a bundle, or a file of it, is missing or cannot be read at the moment."""
    folder = Path(folder)
    try:
        names = (*kind_in((folder / SCHEMA).read_bytes()).payload, SCHEMA, GOLDEN)
        for name in names:
            with (folder / name).open("rb") as file:
                file.read(1)
    except OSError:
        return True
    except ArtefactError:  # it is there, and is no bundle
        return False
    return False
