"""Find artefacts in the store that no version needs or no record names, and copies of them.

Bundles, reference samples and packages, each under the digest of its files: versions with equal
files share them, and they go with the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from include.artefacts.address import BENTOS, BUNDLES, IMMUTABLE, Address
from include.artefacts.entry import Entry
from include.retention.garbage import Garbage, Kind, Place, whole
from include.retention.marks import Version, versions_of

_KINDS: dict[str, Kind] = {BENTOS: "packages"}  # the others are files of models


def ages_of_bundles(place: Place) -> dict[str, float]:
    """Return for how many seconds each bundle in the store has been as it is, by its address.

    Raises:
        Unavailable: the store does not answer.
    """
    now = place.at.timestamp()
    return {
        entry.uri: now - entry.written
        for entry in place.store.entries(BUNDLES, place.name)
        if entry.uri is not None
    }


def bundle_address(version: Version) -> str | None:
    """Return the address of a version's bundle, if that names its content."""
    uri = version.bundle_uri
    return uri if uri is not None and Address.parse(uri).is_digest else None


def find_garbage(
    place: Place, versions: Sequence[Version], gone: frozenset[int]
) -> Iterator[Garbage]:
    """Yield the artefacts of collected versions, those that no version names, and their copies.

    `gone` are the versions that are collected now.

    Raises:
        Unavailable: the store does not answer.
    """
    needed = _addresses(whole(versions, gone))
    named = {uri: each for each in versions for uri in _addresses([each])}
    for kind in IMMUTABLE:
        for entry in place.store.entries(kind, place.name):
            version = named.get(entry.uri or "")
            if entry.uri in needed or (version is None and not _is_old(place, entry)):
                continue
            yield Garbage(
                _KINDS.get(kind, "models"),
                _name(entry, version),
                entry.bytes,
                "no record names it" if version is None else "nothing needs this version",
                _Removal(place, entry),
                version.version if version is not None and version.version in gone else None,
            )
        for entry in place.store.copies(kind, place.name):
            if entry.uri not in needed and _is_old(place, entry):
                yield Garbage(
                    "copies",
                    f"{kind}/{entry.name}",
                    entry.bytes,
                    "nothing needs what it is a copy of",
                    partial(place.store.remove_copy, entry),
                )


def finish(place: Place) -> None:
    """Put back, or remove for good, what killed runs were about to remove."""
    needed = _addresses(
        whole(place.records.database.read(lambda read: versions_of(read, place.name)))
    )
    for kind in IMMUTABLE:
        place.store.finish(kind, place.name, needed.__contains__)


def _addresses(versions: Sequence[Version]) -> set[str]:
    return {
        uri
        for each in versions
        for uri in (each.bundle_uri, each.reference_uri, each.bento_uri)
        if uri is not None
    }


def _is_old(place: Place, entry: Entry) -> bool:
    return place.is_old(place.at.timestamp() - entry.written)


def _name(entry: Entry, version: Version | None) -> str:
    if version is None:
        return f"{entry.kind}/{entry.name}"
    return f"{entry.kind} of version {version.version} of {version.partition}"


class _Removal:
    """The removal of an artefact that nothing needs, as the records are then."""

    def __init__(self, place: Place, entry: Entry) -> None:
        self._place, self._entry = place, entry

    def __call__(self) -> bool:
        # A stage that comes in between has found the artefact before it was put aside: then it is
        # at work, or has named it, and it is put back.
        return self._is_unneeded() and self._place.store.remove(
            self._entry, still_unneeded=self._is_unneeded
        )

    def _is_unneeded(self) -> bool:
        versions = self._place.records.database.read(
            lambda session: versions_of(session, self._place.name)
        )
        return self._entry.uri not in _addresses(whole(versions)) and self._place.at_work() is None
