"""The code in a Bento and its digest: what is verified file by file before any of it runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from include.errors import ArtefactError

TAG = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")  # a version as packaging makes it: model, code
_MAX_BYTES = 16 << 20  # of all files; ours are some tens of kilobytes


def sources_folder(home: Path, bento_tag: str) -> Path:
    """Return the folder of a Bento's code in an installation's home."""
    name, _, version = bento_tag.partition(":")
    return home / "bento" / "bentos" / name / version / "src"


def receipt_path(home: Path, use_case: str, version: str) -> Path:
    """Return the file that holds the digest of every file of a package."""
    return home / "bento" / "receipts" / f"{use_case}-{version}.json"


def export_path(home: Path, use_case: str, version: str) -> Path:
    """Return the file that packaging has exported a Bento to; where a node unpacked it, none is."""
    return home / "bento" / "exports" / f"{use_case}_scorer-{version}.bento"


def package_paths(home: Path, use_case: str, version: str) -> list[Path]:
    """Return the files and folders of a package; the receipt first: without it, it is none."""
    return [
        receipt_path(home, use_case, version),
        export_path(home, use_case, version),
        home / "bento" / "bentos" / f"{use_case}_scorer" / version,
        home / "bento" / "models" / f"{use_case}_model" / version,
    ]


def read_vouched(home: Path, use_case: str, bento_tag: str) -> dict[str, bytes]:
    """Return a Bento's code, if the receipt of its packaging names these very files.

    Raises:
        ArtefactError: there is no such receipt, or it names other files.
        OSError: a file cannot be read.
    """
    files = read_sources(sources_folder(home, bento_tag))
    name, _, version = bento_tag.partition(":")
    start = f"bentos/{name}/{version}/src/"
    try:
        named: dict[str, str] = json.loads(receipt_path(home, use_case, version).read_text())[
            "files"
        ]
        wanted = {
            path.removeprefix(start): digest
            for path, digest in named.items()
            if path.startswith(start)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"bento {bento_tag} has no receipt that can be read ({error}); package the model again"
        ) from None
    found = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    if found != wanted:
        raise ArtefactError(
            f"the code of bento {bento_tag} is not what its receipt names; package the model again"
        )
    return files


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

    Raises:
        ArtefactError: it is not what was recorded, or nothing was recorded.
        OSError: a file cannot be read or written.
    """
    if digest is None:
        raise ArtefactError(
            f"no digest is recorded of the code in {folder}: it was packaged by an earlier "
            "version, and no receipt vouched for it at the upgrade. Package the model again"
        )
    files = read_sources(folder)
    found = sources_digest(files)
    if found != digest:
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
