"""Where a bundle is on this machine: what is away may come back, what is wrong will not."""

from __future__ import annotations

from pathlib import Path

from include.artefacts.address import Address
from include.artefacts.store import ArtefactStore
from include.errors import ArtefactError, Unavailable
from include.models.bundle import GOLDEN, SCHEMA
from include.models.kinds import kind_in
from include.records.models import Model


def find_bundle(store: ArtefactStore, model: Model) -> str:
    """Return the local folder of a model's bundle: from the store, or where a path says.

    Whatever is found is verified by its digest before it is loaded, like any other.

    Raises:
        ArtefactError: it is damaged in the store.
        Unavailable: it is not there, or the store does not answer.
    """
    if model.bundle_uri is None:
        return find_folder(model.bundle, store.home)
    if Address.parse(model.bundle_uri).is_digest:
        try:
            return str(store.get(model.bundle_uri))
        except Unavailable:
            found = find_folder(model.bundle, store.home)
            if Path(found).is_dir():  # of a home whose store is another one by now
                return found
            raise
    # As versions before kept it: in the home folder, under partition and digest.
    for root in (store.root, str(store.home)):
        place = Path(root, Address.parse(model.bundle_uri).path)
        if place.is_dir():
            return str(place)
    return find_folder(model.bundle, store.home)


def find_folder(recorded: str, home: Path) -> str:
    """Return where a bundle lies: as recorded, or at the same place of a home that was moved."""
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
