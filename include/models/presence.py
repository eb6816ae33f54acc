"""Whether the files of a bundle are there at all: what is away may come back, what is wrong not."""

from __future__ import annotations

from pathlib import Path

from include.errors import ArtefactError
from include.models.bundle import GOLDEN, SCHEMA
from include.models.kinds import kind_in


def find_folder(recorded: str, home: Path) -> str:
    """Return where a bundle lies: as recorded, or at the same place of a home that was moved.

    Whatever is found is verified by its digest like any other.
    """
    path = Path(recorded)
    if path.is_dir():
        return recorded
    parts = path.parts
    for at in (index for index, part in enumerate(parts) if part == "models"):
        moved = home.joinpath(*parts[at:])
        if moved.is_dir():
            return str(moved)
    return recorded


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
