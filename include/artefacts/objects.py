"""Artefacts in an object store: S3, Azure, Google's, or whatever else fsspec knows.

The files come first, each by one upload that is there as a whole or not at all; the manifest comes
last. An upload has a folder of its own, so two at once do not mix, and what removes an earlier one
takes nothing of a later one.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.artefacts.address import Address
from include.artefacts.entry import Entry
from include.artefacts.manifest import NAME, Content, Manifest, digest_of
from include.errors import ArtefactError, ConfigError
from include.object_stores import explain, filesystem

REMOVED = "removed.json"  # the manifest of what is being removed
_WRITTEN = ("LastModified", "last_modified", "updated", "mtime", "created")


class Objects:
    """The artefacts below a URI; its errors are OSErrors and ArtefactErrors."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def url_of(self, address: Address) -> str:
        """Return the URL of an artefact, as people open it."""
        return f"{self.root}/{address.path}"

    def manifest(self, address: Address) -> Manifest | None:
        """Return the manifest of an artefact; None: it is not there as a whole.

        Raises:
            ArtefactError: it is another one's, or was changed.
            OSError: the store does not answer.
        """
        try:
            return Manifest.read(self._read(f"{address.path}/{NAME}"), address)
        except FileNotFoundError:
            return None

    def fetch(self, address: Address, manifest: Manifest) -> Mapping[str, bytes]:
        """Return the files of an artefact, verified.

        Raises:
            ArtefactError: a file is not what its address names.
            OSError: the store does not answer, or a file is missing.
        """
        files = {}
        for name, digest in manifest.files.items():
            content = self._read(f"{address.path}/{manifest.folder}/{name}")
            if digest_of(content) != digest:
                raise ArtefactError(
                    f"{self.url_of(address)}/{manifest.folder}/{name} was changed: its address "
                    "names other bytes"
                )
            files[name] = content
        return files

    def put(self, address: Address, files: Mapping[str, Content], manifest: Manifest) -> None:
        """Put an artefact in place as a whole, unless it is there; what is damaged is replaced.

        Raises:
            OSError: it cannot be written; nobody finds it then.
        """
        with contextlib.suppress(ArtefactError, FileNotFoundError):
            present = self.manifest(address)
            if present is not None and self.fetch(address, present):
                return
        folder = f"files-{uuid.uuid4().hex[:12]}"
        for name, content in files.items():
            self._write(f"{address.path}/{folder}/{name}", content)
        self._write(f"{address.path}/{NAME}", Manifest(manifest.files, folder).content)

    def write(self, address: Address, content: Content) -> None:
        """Write a file anew, as a whole.

        Raises:
            OSError: it cannot be written.
        """
        self._write(address.path, content)

    def read(self, address: Address) -> bytes:
        """Return the bytes of a file that is written anew.

        Raises:
            OSError: it is not there, or the store does not answer.
        """
        return self._read(address.path)

    def forget(self, address: Address) -> None:
        """Remove a file that is written anew, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        self._remove(address.path)

    def is_there(self, address: Address) -> bool:
        """Tell whether there is a file of this address.

        Raises:
            OSError: the store does not answer.
        """
        return self._is_file(address.path)

    def upload(self, folder: Path, below: str) -> None:
        """Put all files of a folder below a path of the store, one by one.

        Raises:
            OSError: one cannot be written.
        """
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._write(f"{below}/{path.relative_to(folder).as_posix()}", path)

    def entries(self, kind: str, use_case: str) -> Iterator[Entry]:
        """Yield the artefacts of a kind and use case, also those without a manifest.

        Raises:
            OSError: the store does not answer.
        """
        sizes, written = defaultdict[str, int](int), defaultdict[str, float](float)
        for path, info in self._found(f"{kind}/{use_case}").items():
            name = path.split("/")[0]
            sizes[name] += int(info.get("size") or 0)
            written[name] = max(written[name], _instant(info))
        for name in sorted(sizes):
            yield Entry(kind, use_case, name, sizes[name], written[name])

    def remove(self, kind: str, use_case: str, name: str) -> Generator[bool, bool]:
        """Remove one in two steps: after the first nobody finds it, the second is for good.

        A generator: sent True before the second step, it puts the artefact back. Yields whether
        there was one.

        Raises:
            OSError: it cannot be removed.
        """
        below = f"{kind}/{use_case}/{name}"
        # Listed before: what another process uploads from now on is not among it.
        found = [f"{below}/{path}" for path in self._found(below)]
        if not found:
            yield False
            return
        manifest, kept = f"{below}/{NAME}", f"{below}/{REMOVED}"
        if manifest in found:
            self._write(kept, self._read(manifest))  # a kill from here on loses nothing
            self._remove(manifest)
        if (yield True):
            self._put_back(below)
            return
        for path in found:
            if path != manifest:
                self._remove(path)
        self._remove(kept)

    def finish(self, kind: str, use_case: str, is_needed: Callable[[str], bool]) -> None:
        """Finish the removals that were killed: put back what `is_needed` by its name, once more.

        Raises:
            OSError: one cannot be removed.
        """
        found = self._found(f"{kind}/{use_case}")
        for name in sorted(path.split("/")[0] for path in found if path.endswith(f"/{REMOVED}")):
            below = f"{kind}/{use_case}/{name}"
            if is_needed(name):
                self._put_back(below)
            elif not self._is_file(f"{below}/{NAME}"):  # else it was put there anew meanwhile
                for path in found:
                    if path.startswith(f"{name}/") and not path.endswith(f"/{REMOVED}"):
                        self._remove(f"{kind}/{use_case}/{path}")
                self._remove(f"{below}/{REMOVED}")

    def _put_back(self, below: str) -> None:
        """Let an artefact be found again, unless a new one has come meanwhile."""
        manifest, kept = f"{below}/{NAME}", f"{below}/{REMOVED}"
        with contextlib.suppress(FileNotFoundError):  # it had no manifest
            if not self._is_file(manifest):
                self._write(manifest, self._read(kept))
            self._remove(kept)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask("rm_file", self._path(path))

    def size_below(self, path: str) -> int:
        """Return the bytes of all below a path.

        Raises:
            OSError: the store does not answer.
        """
        return sum(int(info.get("size") or 0) for info in self._found(path).values())

    def remove_below(self, path: str) -> None:
        """Remove all below a path, and nothing whose name only begins like it.

        Raises:
            OSError: it cannot be removed.
        """
        for name in self._found(path):
            self._remove(f"{path}/{name}")

    def _is_file(self, path: str) -> bool:
        try:
            self._ask("info", self._path(path))
        except FileNotFoundError:
            return False
        return True

    def _found(self, path: str) -> dict[str, Mapping[str, Any]]:
        """Return all files below a path, by their names from there on."""
        start = f"{self._path(path)}/"
        try:
            found = self._ask("find", start, detail=True)
        except FileNotFoundError:
            return {}
        # Some stores list what only begins alike, others the folder itself.
        return {
            name.removeprefix(start): info
            for name, info in found.items()
            if name.startswith(start) and name != start
        }

    def _read(self, path: str) -> bytes:
        return bytes(self._ask("cat_file", self._path(path)))

    def _write(self, path: str, content: Content) -> None:
        if isinstance(content, bytes):
            self._ask("pipe_file", self._path(path), content)
        else:
            self._ask("put_file", str(content), self._path(path))

    def _path(self, path: str) -> str:
        return f"{self._system()[1]}/{path}"

    def _system(self) -> tuple[Any, str]:
        """Return fsspec's file system of this process, and the root in it.

        Asked each time: it is kept by fsspec, and a forked child must have one of its own.
        """
        system, root = filesystem(self.root)
        return system, str(root).rstrip("/")

    def _ask(self, question: str, *arguments: Any, **options: Any) -> Any:
        """Return the store's answer.

        Raises:
            OSError: it has none.
        """
        try:
            return getattr(self._system()[0], question)(*arguments, **options)
        except (FileNotFoundError, ConfigError):
            raise
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            raise OSError(0, f"{type(error).__name__}: {explain(error)}") from None


def _instant(info: Mapping[str, Any]) -> float:
    """Return when a file was written, in seconds since 1970; one that does not say so is new."""
    for name in _WRITTEN:
        told = info.get(name)
        if isinstance(told, str):
            with contextlib.suppress(ValueError):
                told = datetime.fromisoformat(told)
        if isinstance(told, datetime):
            return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
        if isinstance(told, int | float):
            return float(told)
    return float("inf")
