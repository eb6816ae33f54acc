"""The files of a model and their digest: what is verified before anything is loaded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from include.errors import ArtefactError

FILES = ("model.txt", "schema.json", "golden.json")
MAX_BYTES = 1 << 30
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".pt", ".pth", ".bin")


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the digest of a bundle's files, given by name."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(f"{name}\0{len(files[name])}\0".encode())
        total.update(files[name])
    return "sha256:" + total.hexdigest()


def read_bundle(folder: str | Path) -> dict[str, bytes]:
    """Return the bytes of a bundle's files, opening nothing that is not allowed to be there.

    Raises: ArtefactError: a file is missing, is a link, or is of a type that is never opened
        (pickle and its kin).
    """
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        raise ArtefactError(
            f"{folder} is no folder of a model bundle; train or import the model again"
        )
    for entry in sorted(folder.iterdir()):
        status = entry.lstat()
        if entry.suffix.lower() in _PICKLES:
            raise ArtefactError(
                f"{entry} is of a type that can run code when it is opened; models are "
                f"{', '.join(FILES)} only"
            )
        if entry.name not in FILES:
            raise ArtefactError(
                f"{entry} does not belong in a model bundle; only {', '.join(FILES)} do. Remove it"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ArtefactError(
                f"{entry} is a link or no regular file; a model bundle holds plain files. Replace "
                "it by the file"
            )
        if status.st_size > MAX_BYTES:
            raise ArtefactError(
                f"{entry} has {status.st_size} bytes, more than a model may have ({MAX_BYTES})"
            )
    files: dict[str, bytes] = {}
    for name in FILES:
        try:
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                files[name] = file.read()
        except FileNotFoundError:
            raise ArtefactError(
                f"{folder / name} is missing; the bundle is not whole. Train or import the model "
                "again"
            ) from None
        except OSError as error:
            raise ArtefactError(
                f"{folder / name} cannot be read ({error.strerror}); check its permissions"
            ) from error
    return files


def bundle_digest(folder: str | Path) -> str:
    """Return the digest of the bundle in a folder."""
    return digest_of(read_bundle(folder))


def verify_bundle(folder: str | Path, digest: str) -> dict[str, bytes]:
    """Return the bytes of a bundle after its digest was found to be the recorded one; nothing is
    loaded.

    Raises:
        ArtefactError: the bundle is not the one that was recorded, or is not whole.
    """
    files = read_bundle(folder)
    found = digest_of(files)
    if found != digest:
        raise ArtefactError(
            f"{folder} has digest {found}, recorded is {digest}; it was changed. Restore it, or "
            "train again"
        )
    return files
