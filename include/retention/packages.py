"""Find Bentos, their models, exports and receipts under HOME/bento that no version needs.

All are named by the model's digest and that of the code. Of a model that stays, the package that
its row names stays, and one that is not recorded yet.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from include.models.bento_sources import TAG, package_paths
from include.retention import aside
from include.retention.garbage import Garbage, Place, whole
from include.retention.marks import Version, versions_of


def find_garbage(
    place: Place, versions: Sequence[Version], gone: frozenset[int]
) -> Iterator[Garbage]:
    """Yield the packages that no version whose files stay is packaged as."""
    by_digest = {each.model_digest.removeprefix("sha256:")[:16]: each for each in versions}
    now = place.at.timestamp()
    for tag in sorted(_tags(place)):
        if _is_named(tag, whole(versions, gone)):
            continue
        with contextlib.suppress(FileNotFoundError):  # another collection removes it meanwhile
            paths = [path for path in _paths(place, tag) if path.exists()]
            if not paths or not all(place.is_old(aside.age_of(path, now)) for path in paths):
                continue
            version = by_digest.get(tag.partition("-")[0])
            yield Garbage(
                "packages",
                tag,
                sum(map(aside.size_of, paths)),
                "nothing needs its model" if version else "no record names its model",
                _Removal(place, tag),
                None if version is None or version.version not in gone else version.version,
            )


def finish(place: Place) -> None:
    """Delete what killed runs have put aside, but for what a version needs."""
    versions = whole(place.records.database.read(lambda read: versions_of(read, place.name)))

    def is_needed(pattern: re.Pattern[str], name: str) -> bool:
        match = pattern.fullmatch(name)
        return match is not None and _is_named(match.group(1), versions)

    for pattern, folder in _patterns(place):
        aside.finish(folder, partial(is_needed, pattern), pattern.fullmatch)


def _is_named(tag: str, versions: Sequence[Version]) -> bool:
    """Tell whether a package is that of one of some versions, or may become it."""
    return any(
        each.bento_tag.partition(":")[2] == tag
        if each.bento_tag is not None
        else each.model_digest.removeprefix("sha256:")[:16] == tag.partition("-")[0]
        for each in versions
    )


def _paths(place: Place, tag: str) -> list[Path]:
    return package_paths(place.settings.home, place.name, tag)


def _patterns(place: Place) -> list[tuple[re.Pattern[str], Path]]:
    """Return what the parts of a package are called, and the folders in which they lie.

    Exports and receipts of all use cases share one.
    """
    return [
        (re.compile(re.escape(path.name).replace("TAG", f"({TAG.pattern})")), path.parent)
        for path in _paths(place, "TAG")
    ]


def _tags(place: Place) -> set[str]:
    """Return the tags of all packages of a use case, whole or not."""
    tags: set[str] = set()
    for pattern, folder in _patterns(place):
        if folder.is_dir():
            matches = map(pattern.fullmatch, (entry.name for entry in folder.iterdir()))
            tags |= {match.group(1) for match in matches if match is not None}
    return tags


class _Removal:
    """The removal of a package: receipt, export, Bento and model."""

    def __init__(self, place: Place, tag: str) -> None:
        self._place, self._tag = place, tag

    def __call__(self) -> bool:
        # Packaging that comes in between has found the package before it was put aside: then it is
        # at work, or has named it, and all is put back.
        return self._is_unneeded() and aside.remove(
            *_paths(self._place, self._tag), still_unneeded=self._is_unneeded
        )

    def _is_unneeded(self) -> bool:
        versions = self._place.records.database.read(
            lambda session: versions_of(session, self._place.name)
        )
        return not _is_named(self._tag, whole(versions)) and self._place.at_work() is None
