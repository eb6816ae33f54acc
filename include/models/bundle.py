"""The files of a model and their digest: what is verified before anything is loaded.

A bundle is a folder of exactly the files of its kind: what only the kind reads (`model.txt`, the
booster's text), `schema.json` (kind, ordered features, types, category codes, calibration,
threshold, digest of the golden rows) and `golden.json` (rows with their scores). Its digest covers
all of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from include.errors import ArtefactError
from include.models.kinds import kind_in

SCHEMA, GOLDEN = "schema.json", "golden.json"
MAX_BYTES = 1 << 30
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".pt", ".pth", ".bin")


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the digest of a bundle's files, given by name.

    Name and length stand before each content, so no byte can move from one file to the next.
    """
    total = hashlib.sha256()
    for name in (*sorted(files.keys() - {SCHEMA, GOLDEN}), SCHEMA, GOLDEN):
        total.update(f"{name}\0{len(files[name])}\0".encode())
        total.update(files[name])
    return "sha256:" + total.hexdigest()


def read_bundle(folder: str | Path) -> dict[str, bytes]:
    """Return the bytes of a bundle's files, opening nothing that is not allowed to be there.

    Raises:
        ArtefactError: a file is missing, is a link, is of a type that is never opened (pickle and
            its kin) or does not belong; or the bundle is of a kind that is not known.
    """
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        raise ArtefactError(
            f"{folder} is no folder of a model bundle; train or import the model again"
        )
    entries = sorted(folder.iterdir())
    for entry in entries:
        _refuse_type(entry)
    schema = _read(folder / SCHEMA)
    names = (*kind_in(schema).payload, SCHEMA, GOLDEN)
    for entry in entries:
        if entry.name not in names:
            raise ArtefactError(
                f"{entry} does not belong in a model bundle; only {', '.join(names)} do. Remove it"
            )
    return {name: schema if name == SCHEMA else _read(folder / name) for name in names}


def _refuse_type(entry: Path) -> None:
    """Refuse what must not be opened whatever its name: pickles, links, devices, huge files."""
    status = entry.lstat()
    if entry.suffix.lower() in _PICKLES:
        raise ArtefactError(
            f"{entry} is of a type that can run code when it is opened; a model bundle holds no "
            "such file. Remove it"
        )
    if not stat.S_ISREG(status.st_mode):
        raise ArtefactError(
            f"{entry} is a link or no regular file; a model bundle holds plain files. Replace it "
            "by the file"
        )
    if status.st_size > MAX_BYTES:
        raise ArtefactError(
            f"{entry} has {status.st_size} bytes, more than a model may have ({MAX_BYTES})"
        )


def _read(path: Path) -> bytes:
    try:
        # Not followed: the file may have become a link since it was looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ArtefactError(
            f"{path} is missing; the bundle is not whole. Train or import the model again"
        ) from None
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error


def bundle_digest(folder: str | Path) -> str:
    """Return the digest of the bundle in a folder."""
    return digest_of(read_bundle(folder))


def verify_bundle(folder: str | Path, digest: str) -> dict[str, bytes]:
    """Return the bytes of a bundle if it has the recorded digest; nothing is loaded.

    Raises:
        ArtefactError: the bundle is not the one that was recorded, or is not whole.
    """
    files = read_bundle(folder)
    actual = digest_of(files)
    if actual != digest:
        raise ArtefactError(
            f"{folder} has digest {actual}, recorded is {digest}; it was changed. Restore it, or "
            "train again"
        )
    return files
