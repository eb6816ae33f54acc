"""A Bento in the store: its export, and the receipt of its packaging; and put in place from there.

    bento/bentos/NAME/VERSION, bento/models/NAME/VERSION    what BentoML and the nodes read
    bento/exports/NAME-VERSION.bento                        the export, one file, of packaging alone
    bento/receipts/USE_CASE-VERSION.json                    last: the digest of every file

The export holds the same files as the folders; the receipt names them, and what it does not name,
or names otherwise, is not put in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from include.artefacts.address import BENTOS
from include.artefacts.store import ArtefactStore
from include.errors import ArtefactError, Unavailable
from include.files import written_aside
from include.models.bento_sources import (
    read_sources,
    receipt_path,
    sources_digest,
    sources_folder,
)
from include.records.models import Model

log = logging.getLogger(__name__)

RECEIPT = "receipt.json"
MOST_BYTES, MOST_FILES = 2 << 30, 10_000  # of an export, unpacked


def put_bento(store: ArtefactStore, use_case: str, export: Path, receipt: Path) -> str:
    """Put the export and the receipt of a package into the store; return their address.

    Raises:
        Unavailable: it cannot be written.
    """
    return store.put(BENTOS, use_case, {export.name: export, RECEIPT: receipt})


def have_bento(store: ArtefactStore, model: Model) -> None:
    """Have the Bento of a model in the home folder, from the store where it is not whole there.

    Without its export, which nobody reads who runs it: `remove_unneeded` tells by that what was
    unpacked to be run from what packaging has put in place.

    Raises:
        ArtefactError: it is damaged in the store.
        Unavailable: it is not there, or the store does not answer.
    """
    if model.bento_tag is None or model.bento_uri is None:
        return
    with contextlib.suppress(OSError, ArtefactError):
        code = read_sources(sources_folder(store.home, model.bento_tag))
        if sources_digest(code) == model.bento_digest:
            return
    place_from_store(store, model.use_case, model.bento_tag, model.bento_uri, with_export=False)
    log.info("bento %s is in place from %s", model.bento_tag, model.bento_uri)


def place_from_store(
    store: ArtefactStore, use_case: str, bento_tag: str, uri: str, *, with_export: bool = True
) -> None:
    """Put a Bento in place from the store, each part by a rename, its receipt last.

    Raises:
        ArtefactError: it is damaged in the store, or another one's.
        Unavailable: it is not there, the store does not answer, or the home cannot be written.
    """
    folder = store.get(uri)
    named, receipt = _receipt(folder / RECEIPT, bento_tag, uri)
    export = folder / f"{bento_tag.replace(':', '-')}.bento"
    if not export.is_file():
        raise ArtefactError(f"{uri} holds no {export.name}; package the model again")
    home = store.home / "bento"
    staging_root = home / "staging"
    try:
        staging_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=staging_root, prefix="from-store-") as scratch:
            staging = Path(scratch)
            _unpack(export, staging, bento_tag, named, uri)
            parts = sorted({"/".join(name.split("/")[:3]) for name in named})
            moves = [(staging / part, home / part) for part in parts]
            if with_export:
                copied = staging / export.name
                shutil.copyfile(export, copied)
                moves.append((copied, home / "exports" / export.name))
            move_in(moves, staging)
        version = bento_tag.partition(":")[2]
        with written_aside(receipt_path(store.home, use_case, version)) as temporary:
            temporary.write_bytes(receipt)
    except OSError as error:
        raise Unavailable(
            f"{home}: bento {bento_tag} cannot be put there ({error.strerror}); free some space, "
            "or mend its owner and permissions"
        ) from error


def move_in(moves: Sequence[tuple[Path, Path]], staging: Path) -> None:
    """Move parts of a Bento from `staging` to where they belong, by a rename each.

    What lies there goes to `staging`: it was left by a run that was killed, or damaged since.

    Raises:
        OSError: one cannot be moved.
    """
    for number, (source, target) in enumerate(moves):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            with contextlib.suppress(FileNotFoundError):  # another process replaces it as well
                target.rename(staging / f"{number}-before")
        source.rename(target)
        if target.is_dir():
            with written_aside(target.parent / "latest") as temporary:
                temporary.write_text(target.name)


def _receipt(path: Path, bento_tag: str, uri: str) -> tuple[dict[str, str], bytes]:
    """Return the digests of a Bento's own files by name, and the receipt as it is.

    Raises:
        ArtefactError: it is no receipt, or another Bento's.
    """
    try:
        content = path.read_bytes()
        told = json.loads(content)
        found, model_tag = str(told["bento_tag"]), str(told["model_tag"])
        named = {str(name): str(digest) for name, digest in told["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{uri} has no receipt that can be read ({error}); package the model again"
        ) from None
    if found != bento_tag:
        raise ArtefactError(f"{uri} is bento {found}, not {bento_tag}; package the model again")
    starts = (f"bentos/{_folder(bento_tag)}/", f"models/{_folder(model_tag)}/")
    return {name: named[name] for name in named if name.startswith(starts)}, content


def _folder(tag: str) -> str:
    name, _, version = tag.partition(":")
    return f"{name}/{version}"


def _unpack(
    export: Path, staging: Path, bento_tag: str, named: Mapping[str, str], uri: str
) -> None:
    """Write the files of an export that the receipt names, all of them, each once verified.

    Raises:
        ArtefactError: a file is missing, is another one, or something is no plain file.
        OSError: one cannot be written.
    """
    left = dict(named)
    try:
        with tarfile.open(export) as archive:
            for member, name in _plain_members(archive, bento_tag, uri):
                if name not in left:
                    continue
                file = archive.extractfile(member)
                content = b"" if file is None else file.read()
                if hashlib.sha256(content).hexdigest() != left.pop(name):
                    raise ArtefactError(f"{uri}: {name} is not what its receipt names")
                path = staging / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    except (tarfile.TarError, EOFError) as error:
        raise ArtefactError(
            f"{uri} cannot be unpacked ({error}); package the model again"
        ) from None
    if left:
        raise ArtefactError(f"{uri} lacks {min(left)!r}; package the model again")


def _plain_members(
    archive: tarfile.TarFile, bento_tag: str, uri: str
) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield the files of an export with the name that a receipt has for each.

    Raises:
        ArtefactError: something is a link or a device, leads elsewhere, or is too large.
    """
    size = 0
    for number, member in enumerate(archive):
        path = PurePosixPath(member.name)
        if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise ArtefactError(f"{uri} holds {member.name!r}, which is no plain file of a Bento")
        size += member.size
        if size > MOST_BYTES or number > MOST_FILES:
            raise ArtefactError(f"{uri} holds more than a Bento may have")
        if member.isreg():
            name = path.as_posix()
            yield (
                member,
                name if name.startswith("models/") else f"bentos/{_folder(bento_tag)}/{name}",
            )
