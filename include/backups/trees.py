"""The files of an installation, as trees: what a backup reads and a restore writes.

A tree is a part of an installation that may lie anywhere, in a folder or an object store; the path
of a file below its root is the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from include.artefacts.address import (
    BENTOS,
    BUNDLES,
    IMMUTABLE,
    MLFLOW,
    MODELS,
    REFERENCES,
    REPORTS,
    VALIDATION,
)
from include.artefacts.manifest import NAME as MANIFEST
from include.config.settings import Settings
from include.errors import SourceError
from include.files import written_aside
from include.models.public_keys import is_public_file
from include.object_stores import explained, filesystem

PIECE = 1 << 20  # bytes that are read at once
# What somebody is writing at this moment: hidden names, and delta-rs's commits before their name.
_UNFINISHED = re.compile(r"(^|/)\.|\.json\.tmp$")
_LOG = "/_delta_log/"
# Moves while it is read, and then names what was not listed yet. A table is read without it.
_POINTER = f"{_LOG}_last_checkpoint"
# Kinds of artefacts below the root of the store.
KINDS = (
    BUNDLES,
    REFERENCES,
    BENTOS,
    MODELS,
    MLFLOW,
    REPORTS,
    VALIDATION,
)
_NEVER_CHANGED = tuple(f"{kind}/" for kind in IMMUTABLE)
KEYS = "keys"  # the public ones and the list of those revoked; the private one is in no backup
BENTO = ("bento/bentos", "bento/models", "bento/exports", "bento/receipts")


class Listed(NamedTuple):
    """A file of a tree; `immutable` says that one of this path and size never has other bytes."""

    path: str
    bytes: int
    immutable: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """A part of an installation: `folders` below `root`, and in them the files that `takes` names.

    `fleeting` says that files may go while they are read, since what they hold comes elsewhere, and
    that a restore finds others there.
    """

    name: str
    root: str
    folders: tuple[str, ...] = ("",)
    takes: Callable[[str], bool] = lambda path: True
    fleeting: bool = False

    def files(self) -> Iterator[Listed]:
        """Yield the files; of a lake as its tables are at one moment.

        Their logs are listed before the rest: a commit that comes in between is not among them,
        and the files of those that are, are there.

        Raises:
            SourceError: the place cannot be read.
        """
        if self.name != "lake":
            yield from self._listed()
            return
        yield from [each for each in self._listed() if _LOG in each.path]
        yield from (each for each in self._listed() if _LOG not in each.path)

    def _listed(self) -> Iterator[Listed]:
        with self._explained("cannot be listed"):
            system, base = _system(self.root)
            for folder in self.folders:
                start = f"{base}/{folder}".rstrip("/")
                if not system.exists(start):
                    continue
                for found, details in system.find(start, detail=True).items():
                    path = found[len(base) :].lstrip("/")
                    if details.get("islink") or not self._is_taken(path):
                        continue
                    yield Listed(path, int(details["size"]), self._is_immutable(path))

    def _is_taken(self, path: str) -> bool:
        is_whole = not _UNFINISHED.search(path) and not path.endswith(_POINTER)
        return is_whole and self.takes(path)

    def _is_immutable(self, path: str) -> bool:
        if self.name == "lake":
            # A table that was reset and made anew has commits of the same names, often as long.
            return _LOG not in path
        # The manifest of an artefact names the folder of its upload: another one each time.
        return path.startswith(_NEVER_CHANGED) and not path.endswith(f"/{MANIFEST}")

    def read(self, path: str) -> IO[bytes]:
        """Open a file.

        Raises:
            OSError: it cannot be read.
        """
        system, base = _system(self.root)
        opened: IO[bytes] = system.open(f"{base}/{path}", "rb")
        return opened

    def size_of(self, path: str) -> int | None:
        """Return the bytes of a file that may be there; None: it is not."""
        system, base = _system(self.root)
        try:
            return int(system.info(f"{base}/{path}")["size"])
        except FileNotFoundError:
            return None

    @contextmanager
    def written(self, path: str) -> Iterator[IO[bytes]]:
        """Give a file to write to, which is in place as a whole once the block ends well.

        Raises:
            OSError: it cannot be written.
        """
        if not _is_plain(path):
            raise SourceError(f"{path!r} leads out of {self.name}; take a backup that is whole")
        if "://" not in self.root:
            with (
                written_aside(Path(self.root) / path, mode=0o600, durable=True) as temporary,
                temporary.open("wb") as file,
            ):
                yield file
            return
        system, base = _system(self.root)
        # An upload that an error ends must not be completed, as closing the file would.
        file = system.open(f"{base}/{path}", "wb")
        try:
            yield file
        except BaseException:
            file.discard()
            # Whatever library it is of: one that is collected would be closed, and so completed.
            file.closed = True
            raise
        file.close()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        with explained(self.root, what, "mend that, then run it again"):
            yield


def _is_plain(path: str) -> bool:
    return bool(path) and not any(part in ("", ".", "..") for part in path.split("/"))


def _system(root: str) -> tuple[Any, str]:
    system, base = filesystem(root)
    return system, str(base).rstrip("/")


def segments_of(settings: Settings) -> list[Tree]:
    """Return where closed segments of the prediction log are that the lake has not yet."""
    places = [str(settings.home / "predictions")]
    if settings.segments_root:
        places.append(settings.segments_root.rstrip("/"))
    return [Tree("segments", place, takes=_is_closed, fleeting=True) for place in places]


def _is_closed(path: str) -> bool:
    return path.endswith((".jsonl", ".bad")) and path.count("/") == 1


def trees_to_read(settings: Settings) -> list[Tree]:
    """Return what a backup reads, in order: segments before the lake, which takes them in.

    A segment that goes meanwhile is in the lake by then.
    """
    return [*segments_of(settings), *_trees(settings)]


def trees_to_write(settings: Settings) -> dict[str, Tree]:
    """Return where a restore puts the files of each tree."""
    shared = segments_of(settings)[-1]
    return {tree.name: tree for tree in (shared, *_trees(settings))}


def _trees(settings: Settings) -> list[Tree]:
    home = str(settings.home)
    return [
        Tree("store", settings.store_root, KINDS),
        Tree("bento", home, BENTO),
        Tree("lake", settings.lake_root.rstrip("/")),
        # Added to those that are there, as a new installation has its own.
        Tree(KEYS, str(settings.signing_keys_folder), takes=is_public_file, fleeting=True),
    ]
