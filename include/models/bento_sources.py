"""The code in a Bento and its digest: what is verified file by file before any of it runs."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from include.errors import ArtefactError

_MAX_BYTES = 16 << 20  # of all files; ours are some tens of kilobytes


def sources_folder(home: Path, bento_tag: str) -> Path:
    """Return the folder of a Bento's code in an installation's home."""
    name, _, version = bento_tag.partition(":")
    return home / "bento" / "bentos" / name / version / "src"


def read_sources(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a Bento's code, by its path in it.

    Bytecode that Python left there is passed over, and never runs: it is of no recorded content.

    Raises:
        ArtefactError: there is something else than plain files, or too much.
        OSError: a file cannot be read, or the folder is not there.
    """
    files, size = dict[str, bytes](), 0
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted([*names, *folders]):
            path = Path(place) / name
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise ArtefactError(f"{path} is no plain file; package the model again")
            content = path.read_bytes()
            size += len(content)
            if size > _MAX_BYTES:
                raise ArtefactError(f"{folder} holds more than {_MAX_BYTES} bytes of code")
            files[path.relative_to(folder).as_posix()] = content
    return files


def sources_digest(files: Mapping[str, bytes]) -> str:
    """Return the digest of a Bento's code; name and length stand before each content."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{len(files[name])}\0".encode())
        total.update(files[name])
    return "sha256:" + total.hexdigest()


def copy_verified(folder: Path, digest: str | None, target: Path) -> None:
    """Write a Bento's code into an empty folder, once it is what was recorded.

    What is written are the bytes that were verified: files that change meanwhile change nothing.
    Without a digest (packaged by an earlier version) the code is taken as it is.

    Raises:
        ArtefactError: it is not what was recorded.
        OSError: a file cannot be read or written.
    """
    files = read_sources(folder)
    found = sources_digest(files)
    if digest is not None and found != digest:
        raise ArtefactError(
            f"the code in {folder} has digest {found}, recorded is {digest}; it was changed. "
            "Package the model again"
        )
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _raise(error: OSError) -> None:
    raise error
