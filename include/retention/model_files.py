"""Find bundles of versions before, under HOME/models, that no version needs or no record names.

A bundle lies in a folder by partition and digest; the sample that drift is measured against lies
beside it. Two versions with one digest and partition share it: it goes with the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from include.retention import artefacts, aside
from include.retention.garbage import Garbage, Place, whole
from include.retention.marks import Version, versions_of


def find_collectable(
    place: Place, versions: Sequence[Version], kept: Mapping[int, str]
) -> list[Version]:
    """Return the versions that nothing keeps, whose files are here and old enough to go.

    One whose files lie elsewhere is left alone: they may be another machine's.

    Raises:
        Unavailable: the store does not answer.
    """
    shared = {files_of(place, each) for each in versions if each.version in kept}
    ages, now = artefacts.ages_of_bundles(place), place.at.timestamp()
    found = []
    for each in versions:
        files = files_of(place, each)
        if each.version in kept or each.collected_at is not None or files in shared:
            continue
        if isinstance(files, str):
            age = ages.get(files)
        else:
            age = aside.age_of(files, now) if files is not None and files.is_dir() else None
        if age is not None and place.is_old(age):
            found.append(each)
    return found


def files_of(place: Place, version: Version) -> str | Path | None:
    """Return where a version's files are: an address of the store, or a folder of this home."""
    return artefacts.bundle_address(version) or folder_of(place, version)


def folder_of(place: Place, version: Version) -> Path | None:
    """Return the folder of a version's files in this home; None: it is named otherwise.

    By what is recorded below the last `models/USE_CASE`: a home that was moved, or copied, has it
    at the same place. Whatever the bundle is called in its folder: one that no version seems to
    need would be removed.
    """
    parts = Path(version.bundle).parts
    for at in reversed(range(len(parts) - 3)):
        if parts[at : at + 2] == ("models", place.name):
            return place.settings.home.joinpath(*parts[at : at + 4])
    return None


def find_garbage(
    place: Place, versions: Sequence[Version], gone: frozenset[int]
) -> Iterator[Garbage]:
    """Yield the folders of collected versions, and those that no version names.

    `gone` are the versions that are collected now.
    """
    home = place.settings.home / "models" / place.name
    if not home.is_dir():
        return
    before = [each for each in versions if artefacts.bundle_address(each) is None]
    staying = {folder_of(place, each) for each in whole(before, gone)}
    named = {folder_of(place, each): each for each in before}
    now = place.at.timestamp()
    for key_folder in sorted(path for path in home.iterdir() if path.is_dir()):
        for folder in sorted(key_folder.iterdir()):
            if folder in staying or folder.name.startswith(aside.PREFIX):
                continue
            with contextlib.suppress(FileNotFoundError):  # a training has tidied up meanwhile
                if folder not in named and not place.is_old(aside.age_of(folder, now)):
                    continue
                version = named.get(folder)
                yield Garbage(
                    "models",
                    f"{key_folder.name}/{folder.name}" if version is None else _name(version),
                    aside.size_of(folder),
                    "no record names it" if version is None else "nothing needs this version",
                    _Removal(place, key_folder.name, folder),
                    version.version if version is not None and version.version in gone else None,
                )


def finish(place: Place) -> None:
    """Delete what killed runs have put aside."""
    home = place.settings.home / "models" / place.name
    if not home.is_dir():
        return
    staying = _staying(place)
    for key_folder in [path for path in home.iterdir() if path.is_dir()]:
        if any(key_folder.glob(f"{aside.PREFIX}*")):
            with place.training_kept_out(key_folder.name) as alone:
                if alone:
                    aside.finish(key_folder, _NamedIn(key_folder, staying))


def _name(version: Version) -> str:
    return f"version {version.version} of {version.partition}"


def _staying(place: Place) -> set[Path | None]:
    """Return the folders of versions whose files are to stay, as the records are now."""
    versions = place.records.database.read(lambda session: versions_of(session, place.name))
    return {folder_of(place, each) for each in whole(versions)}


class _NamedIn:
    """Whether a folder of this name is to stay."""

    def __init__(self, folder: Path, staying: Collection[Path | None]) -> None:
        self._folder, self._staying = folder, staying

    def __call__(self, name: str) -> bool:
        return self._folder / name in self._staying


class _Removal:
    """The removal of a folder of a partition, with its training kept out."""

    def __init__(self, place: Place, key: str, folder: Path) -> None:
        self._place, self._key, self._folder = place, key, folder

    def __call__(self) -> bool:
        with self._place.training_kept_out(self._key) as alone:
            # Asked again with the training kept out: it may have made this version whole again.
            if not alone or self._folder in _staying(self._place):
                return False
            removed = aside.remove(self._folder)
            with contextlib.suppress(OSError):  # it holds more
                self._folder.parent.rmdir()
            return removed
