"""Artefacts in a folder: a store that all mount, or the copies that one machine keeps.

An artefact is built under a hidden name and put in place by one rename: who finds it finds all of
it. It is read where it lies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

from include.artefacts.address import Address
from include.artefacts.entry import Entry
from include.artefacts.manifest import FILES, NAME, Content, Manifest, digest_of
from include.errors import ArtefactError
from include.files import sync_folder, written_aside

PREFIX = ".put."  # of what is being written
REMOVED = ".removed."  # of what is being removed


class Folder:
    """The artefacts below a folder; its errors are OSErrors and ArtefactErrors."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, address: Address) -> Path:
        """Return where an artefact lies, whether it is there or not."""
        return self.root / address.path

    def find(self, address: Address) -> Path | None:
        """Return the folder with the files of an artefact, verified; None: it is not there.

        Raises:
            ArtefactError: it is not what its address names.
            FileNotFoundError: a file of it is missing.
            OSError: it cannot be read.
        """
        place = self.path_of(address)
        try:
            manifest = Manifest.read((place / NAME).read_bytes(), address)
        except (FileNotFoundError, NotADirectoryError):
            return None
        # What was copied from an object store keeps the folder of its upload.
        folder = place / manifest.folder
        if more := _names(folder) - set(manifest.files):
            raise ArtefactError(f"{folder} holds {min(more)!r}, which {address} does not name")
        for name, digest in manifest.files.items():
            if digest_of(folder / name) != digest:
                raise ArtefactError(f"{folder / name} was changed: {address} names other bytes")
        return folder

    def put(self, address: Address, files: Mapping[str, Content], manifest: Manifest) -> Path:
        """Put an artefact in place as a whole, unless it is there; what is damaged is replaced.

        Returns the folder of its files.

        Raises:
            OSError: it cannot be written; nothing of it is visible.
        """
        with contextlib.suppress(ArtefactError, FileNotFoundError):
            if (folder := self.find(address)) is not None:
                return folder
        target = self.path_of(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{PREFIX}{uuid.uuid4().hex[:12]}")
        try:
            for name, content in files.items():
                path = scratch / FILES / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    shutil.copyfile(content, path)
                _sync(path)
            (scratch / NAME).write_bytes(Manifest(manifest.files).content)
            _sync(scratch / NAME)
            # The names too, before the records name what a loss of power would take away.
            for folder in (path for path in scratch.rglob("*") if path.is_dir()):
                sync_folder(folder)
            sync_folder(scratch)
            self._place(scratch, address)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target / FILES

    def _place(self, scratch: Path, address: Address) -> None:
        """Rename a whole artefact to its name; another process may do the same at this moment."""
        target = self.path_of(address)
        for _ in range(3):
            try:
                scratch.rename(target)
                return
            except OSError:
                if not target.is_dir():
                    raise
            with contextlib.suppress(ArtefactError, FileNotFoundError):
                if self.find(address) is not None:
                    return  # another one was faster
            remove_whole(target)
        raise ArtefactError(f"{target} cannot be put in place: what lies there comes back")

    @contextlib.contextmanager
    def written(self, address: Address) -> Iterator[Path]:
        """Give a path to write to; what is written there is then the artefact, as a whole.

        Raises:
            OSError: it cannot be written; what was there stays.
        """
        with written_aside(self.path_of(address)) as temporary:
            yield temporary

    def entries(self, kind: str, use_case: str) -> Iterator[Entry]:
        """Yield the artefacts of a kind and use case; what is half written is there by its name.

        What vanishes meanwhile is passed over.
        """
        folder = self.root / kind / use_case
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                # The time of its name counts too: one put in place just now may hold old files.
                written = max(status.st_mtime, status.st_ctime)
                yield Entry(kind, use_case, path.name, _size(path), written)

    def remove(self, kind: str, use_case: str, name: str) -> Generator[bool, bool]:
        """Remove one in two steps: after the first nobody finds it, the second is for good.

        A generator: sent True before the second step, it puts the artefact back. Yields whether
        there was one.

        Raises:
            OSError: it cannot be removed.
        """
        path = self.root / kind / use_case / name
        aside = path.with_name(f"{REMOVED}{uuid.uuid4().hex[:12]}.{name.lstrip('.')}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            yield False
            return
        if (yield True):
            with contextlib.suppress(OSError):  # a new one has come meanwhile
                aside.rename(path)
                return
        _delete(aside)

    def finish(self, kind: str, use_case: str, is_needed: Callable[[str], bool]) -> None:
        """Finish the removals that were killed: put back what `is_needed` by its name, once more.

        Raises:
            OSError: one cannot be removed.
        """
        for aside in sorted((self.root / kind / use_case).glob(f"{REMOVED}*")):
            path = aside.with_name(aside.name.removeprefix(REMOVED).partition(".")[2])
            if is_needed(path.name) and not path.exists():
                aside.rename(path)
            else:
                _delete(aside)


def remove_whole(path: Path) -> None:
    """Remove a folder or a file at once for whoever looks, then its content.

    Raises:
        OSError: it cannot be removed.
    """
    aside = path.with_name(f"{REMOVED}{uuid.uuid4().hex[:12]}.{path.name}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        _delete(aside)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    """Return the names of all in a folder.

    Raises:
        ArtefactError: something is no plain file: a link may lead anywhere.
        OSError: it cannot be read.
    """
    names = set()
    for place, folders, files in os.walk(folder, onerror=_raise):
        for name in [*files, *(each for each in folders if (Path(place) / each).is_symlink())]:
            path = Path(place) / name
            if path.is_symlink() or not path.is_file():
                raise ArtefactError(f"{path} is a link or no plain file")
            names.add(path.relative_to(folder).as_posix())
    return names


def _size(path: Path) -> int:
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum(
        Path(place, name).lstat().st_size for place, _, names in os.walk(path) for name in names
    )


def _sync(path: Path) -> None:
    """Wait until a file is on the disk: the records name it from soon on, also after a power cut.

    Raises:
        OSError: the disk refuses it; a full one may say so only here.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _raise(error: OSError) -> None:
    raise error
