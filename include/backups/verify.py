"""Verify what backups are made of, since a piece that is damaged would be named again for ever.

A backup compares what it finds in place by its size alone: else each night would read all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from include.backups.manifest import Manifest, Piece
from include.backups.progress import Progress
from include.backups.repository import Repository, files_of, pieces_of
from include.backups.take import AT_ONCE
from include.errors import ArtefactError


@dataclass
class Verified:
    """What a verification found: damaged or missing pieces, each with the backups that name it.

    `unreadable` says of each damaged manifest what is wrong with it.
    """

    damaged: dict[Piece, list[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.damaged or self.unreadable)


def verify(repository: Repository, say: Callable[[str], object]) -> Verified:
    """Read every piece that a backup names, and say and remove what is damaged.

    The next backup, which the caller takes, writes anew what is still there.

    Raises:
        SourceError: the place cannot be read or written.
    """
    found, named = Verified(), dict[Piece, list[str]]()
    for name in repository.names():
        try:
            manifest = repository.manifest(name)
        except ArtefactError as error:
            found.unreadable.append(str(error))
            continue
        with suppress(ArtefactError):  # its list of files is one of the damaged pieces
            for piece in _all_pieces(repository, manifest):
                names = named.setdefault(piece, [])
                if names[-1:] != [name]:
                    names.append(name)
    counted, pieces = Progress("pieces verified", say), iter(named)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="verify") as pool:
        while part := list(islice(pieces, AT_ONCE * 16)):
            for piece, is_whole in zip(part, pool.map(repository.is_whole, part), strict=True):
                counted.add(piece.bytes)
                if not is_whole:
                    repository.remove(piece)
                    found.damaged[piece] = named[piece]
    counted.end()
    for name in _names(found):
        say(f"note: backup {name}: {len(_of(found, name))} damaged or missing pieces")
    for fault in found.unreadable:
        say(f"note: {fault}")
    return found


def after_backup(found: Verified, repository: Repository) -> Iterator[str]:
    """Yield in words what became of damaged backups by the one that was taken since."""
    for name in _names(found):
        lost = [piece for piece in _of(found, name) if not repository.has(piece)]
        if lost:
            yield (
                f"backup {name}: {len(lost)} of its pieces are nowhere any more, so it cannot be "
                f"restored; remove {repository.place_of(name)}"
            )
        else:
            yield f"backup {name} is whole again"


def _names(found: Verified) -> list[str]:
    return sorted({name for names in found.damaged.values() for name in names})


def _of(found: Verified, name: str) -> list[Piece]:
    return [piece for piece, names in found.damaged.items() if name in names]


def _all_pieces(repository: Repository, manifest: Manifest) -> Iterator[Piece]:
    yield from pieces_of(manifest)
    for file in files_of(repository, manifest):
        yield Piece(file.digest, file.bytes)
