"""The store of artefacts: what stages leave for one another and for the nodes, by address.

A store that is a folder (the home folder, or a volume that all mount) is read in place, without a
copy. Another one is read through copies on this machine, each verified by its digest: who has had
an artefact goes on having it while the store is away.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from include.artefacts.address import (
    IMMUTABLE,
    MLFLOW,
    REPORTS,
    VALIDATION,
    Address,
)
from include.artefacts.cache import Cache
from include.artefacts.entry import Entry
from include.artefacts.folder import PREFIX, Folder
from include.artefacts.manifest import Content, Manifest
from include.artefacts.objects import Objects
from include.config.settings import Settings
from include.errors import ArtefactError, Unavailable
from include.object_stores import explain, is_remote, redacted

log = logging.getLogger(__name__)

SETTING = "EVERGREEN_STORE_URI"
# Whatever a use case has in the store: what never changes, and what is written anew.
KINDS = (*IMMUTABLE, REPORTS, VALIDATION, MLFLOW)


class ArtefactStore:
    """The artefacts of an installation."""

    def __init__(self, root: str, home: Path, *, cache_bytes: int) -> None:
        """Build it; `root` is a folder or a URI of an object store. Nothing is asked yet."""
        self.home, self.root = home, root
        self._objects = Objects(root) if is_remote(root) else None
        self._folder = Cache(home, cache_bytes) if self._objects else Folder(Path(root))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the store that the settings name."""
        return cls(
            settings.store_root,
            settings.home,
            cache_bytes=round(settings.cache_megabytes * 1e6),
        )

    @property
    def is_local(self) -> bool:
        """Whether it is a folder, which is read in place."""
        return self._objects is None

    # what never changes

    def put(self, kind: str, use_case: str, files: Mapping[str, Content]) -> str:
        """Put files as one artefact, whole or not at all; return its address.

        Equal files have one address, so doing it twice changes nothing; a damaged one is replaced.

        Raises:
            ArtefactError: a name of a file leads elsewhere.
            Unavailable: it cannot be written.
        """
        manifest = Manifest.of(files)
        address = Address(kind, use_case, manifest.digest)
        with self._written(address):
            if self._objects is None:
                self._folder.put(address, files, manifest)
            else:
                self._objects.put(address, files, manifest)
        return str(address)

    def get(self, uri: str) -> Path:
        """Return a local folder with the files of an artefact, verified by their digest.

        Raises:
            ArtefactError: it is damaged where it lies.
            Unavailable: it is not there, or the store does not answer.
        """
        address = Address.parse(uri)
        if not address.is_digest:
            raise ArtefactError(f"{uri} does not name its content, so it cannot be verified")
        if self._objects is None:
            with self._read(address):
                found = self._folder.find(address)
                if found is None:
                    raise FileNotFoundError
                return found
        return self._from_cache(address, self._folder, self._objects)

    def _from_cache(self, address: Address, cache: Folder, objects: Objects) -> Path:
        assert isinstance(cache, Cache)
        try:
            found = cache.find(address)
        except (ArtefactError, OSError) as error:
            log.warning("the copy of %s is fetched again: %s", address, error)
            found = None
        if found is not None:
            cache.mark_used(address)
            return found
        with self._read(address):
            manifest = objects.manifest(address)
            if manifest is None:
                raise FileNotFoundError
            files = objects.fetch(address, manifest)
        try:
            folder = cache.put(address, files, manifest)
            cache.trim(address)
        except OSError as error:
            raise _unwritten(cache.root, error, "EVERGREEN_HOME") from error
        return folder

    def holds(self, uri: str) -> bool:
        """Tell whether the store itself has an artefact, whole; copies do not count.

        Raises:
            Unavailable: it does not answer.
        """
        address = Address.parse(uri)
        with self._read(address), contextlib.suppress(ArtefactError, FileNotFoundError):
            if self._objects is None:
                return self._folder.find(address) is not None
            manifest = self._objects.manifest(address)
            return manifest is not None and bool(self._objects.fetch(address, manifest))
        return False

    # what is written anew: a partition's reports, its scores

    @contextlib.contextmanager
    def written(self, uri: str) -> Iterator[Path]:
        """Give a local path to write to; what is written there is then the artefact, as a whole.

        Raises:
            Unavailable: it cannot be written; what was there stays.
        """
        address = Address.parse(uri)
        with self._written(address):
            if self._objects is None:
                with self._folder.written(address) as path:
                    yield path
                return
            self._folder.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder.root, prefix=PREFIX) as scratch:
                # Writers choose a format by the end of the name.
                path = Path(scratch) / address.rest.rpartition("/")[2]
                yield path
                self._objects.write(address, path)

    def write(self, uri: str, content: str | bytes) -> None:
        """Write a file anew, as a whole.

        Raises:
            Unavailable: it cannot be written; what was there stays.
        """
        raw = content.encode() if isinstance(content, str) else content
        address = Address.parse(uri)
        with self._written(address):
            if self._objects is not None:
                self._objects.write(address, raw)
                return
            with self._folder.written(address) as path:
                path.write_bytes(raw)

    def read(self, uri: str) -> bytes:
        """Return the bytes of a file that is written anew.

        Raises:
            Unavailable: it is not there, or the store does not answer.
        """
        address = Address.parse(uri)
        with self._read(address):
            if self._objects is not None:
                return self._objects.read(address)
            return self._folder.path_of(address).read_bytes()

    def forget(self, uri: str) -> None:
        """Remove a file that is written anew, if it is there.

        Raises:
            Unavailable: it cannot be removed.
        """
        address = Address.parse(uri)
        with self._written(address):
            if self._objects is not None:
                self._objects.forget(address)
            else:
                self._folder.path_of(address).unlink(missing_ok=True)

    def is_there(self, uri: str) -> bool:
        """Tell whether there is a file of this address.

        Raises:
            Unavailable: the store does not answer.
        """
        address = Address.parse(uri)
        with self._read(address):
            if self._objects is not None:
                return self._objects.is_there(address)
            return self._folder.path_of(address).exists()

    def where(self, uri: str) -> str:
        """Return where people find an artefact: a path of this machine, or a URL."""
        address = Address.parse(uri)
        if self._objects is not None:
            return self._objects.url_of(address)
        return str(self._folder.path_of(address))

    def upload(self, folder: Path, address: Address) -> None:
        """Put all files of a folder below an address, one by one.

        Raises:
            Unavailable: one cannot be written.
        """
        with self._written(address):
            if self._objects is not None:
                self._objects.upload(folder, address.path)
            else:
                shutil.copytree(folder, self._folder.path_of(address), dirs_exist_ok=True)

    # what is there, and what goes

    def entries(self, kind: str, use_case: str) -> list[Entry]:
        """Return what the store has of a kind and use case, whole or not.

        Raises:
            Unavailable: it does not answer.
        """
        with self._read(Address(kind, use_case, "all")):
            return list((self._objects or self._folder).entries(kind, use_case))

    def copies(self, kind: str, use_case: str) -> list[Entry]:
        """Return the copies that this machine has."""
        return [] if self._objects is None else list(self._folder.entries(kind, use_case))

    def remove(self, entry: Entry, *, still_unneeded: Callable[[], bool] = lambda: True) -> bool:
        """Remove something from the store; tell whether it is gone.

        It is put back if it turns out, once nobody finds it any more, that somebody needs it.

        Raises:
            Unavailable: it cannot be removed.
        """
        with self._read(Address(entry.kind, entry.use_case, "all")):
            return _remove(self._objects or self._folder, entry, still_unneeded)

    def finish(self, kind: str, use_case: str, is_needed: Callable[[str], bool]) -> None:
        """Finish the removals that were killed: put back what `is_needed` by its address.

        Raises:
            Unavailable: one cannot be removed.
        """

        def named(name: str) -> bool:
            return is_needed(f"store:{kind}/{use_case}/{name}")

        with self._read(Address(kind, use_case, "all")):
            (self._objects or self._folder).finish(kind, use_case, named)

    def mark_used(self, uris: Iterable[str]) -> None:
        """Note that the copies of these artefacts, as far as there are any, may be needed soon."""
        if isinstance(self._folder, Cache):
            for uri in uris:
                with contextlib.suppress(ArtefactError):  # no address, so there is no copy
                    self._folder.mark_used(Address.parse(uri))

    def remove_copy(self, entry: Entry) -> bool:
        """Remove a copy of this machine; tell whether it is gone."""
        return _remove(self._folder, entry, lambda: True)

    def prefixes(self, use_case: str) -> list[str]:
        """Return the paths below the root that hold what belongs to a use case, and nothing else.

        Raises:
            ArtefactError: its name would lead elsewhere.
        """
        return [Address(kind, use_case, "all").path.removesuffix("/all") for kind in KINDS]

    def sizes(self, use_case: str) -> dict[str, int]:
        """Return the bytes of each prefix of a use case in an object store.

        Raises:
            Unavailable: it does not answer.
        """
        if self._objects is None:
            return {}
        sizes = {}
        for prefix in self.prefixes(use_case):
            with self._read(Address.parse(f"store:{prefix}/all")):
                sizes[f"{self.root}/{prefix}"] = self._objects.size_below(prefix)
        return {name: size for name, size in sizes.items() if size}

    def remove_all(self, use_case: str) -> None:
        """Remove all that an object store has of a use case.

        Raises:
            Unavailable: it cannot be removed.
        """
        if self._objects is None:
            return
        for prefix in self.prefixes(use_case):
            with self._read(Address.parse(f"store:{prefix}/all")):
                self._objects.remove_below(prefix)

    # errors

    @contextlib.contextmanager
    def _read(self, address: Address) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise Unavailable(
                f"{address} is not in {self.root}: it was removed, or {SETTING} names another "
                "place than where it was written, or one that is not mounted"
            ) from None
        except ArtefactError as error:
            raise ArtefactError(
                f"{error}. It lies in {self.root}; restore it, or make it again: train the "
                "partition's model, or package it, again"
            ) from None
        except OSError as error:
            raise Unavailable(
                f"{address} cannot be read in {self.root} ({_reason(error)}); mend the store, or "
                f"{SETTING} and its credentials"
            ) from error

    @contextlib.contextmanager
    def _written(self, address: Address) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritten(f"{address} in {self.root}", error) from error


def _unwritten(place: object, error: OSError, setting: str = SETTING) -> Unavailable:
    remedy = f"mend its owner and permissions, or {setting}"
    if error.errno == errno.ENOSPC:
        remedy = "free some space there, and run this again"
    elif error.errno == errno.EROFS:
        remedy = f"mount it so that it can be written, or set {setting} to another place"
    elif isinstance(error, FileNotFoundError):
        remedy = f"make the place, such as the bucket, or correct {setting}"
    return Unavailable(f"{place} cannot be written ({_reason(error)}); {remedy}")


def _reason(error: OSError) -> str:
    """Return what a store says; its library's own errors have no number, and no text of one."""
    return redacted(error.strerror) if error.strerror else explain(error)


def _remove(place: Folder | Objects, entry: Entry, still_unneeded: Callable[[], bool]) -> bool:
    steps = place.remove(entry.kind, entry.use_case, entry.name)
    if not next(steps):
        return False
    needed = not still_unneeded()
    with contextlib.suppress(StopIteration):
        steps.send(needed)
    return not needed
