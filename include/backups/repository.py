"""Where backups are kept: pieces under their SHA-256, which backups share, and one manifest each.

objects/ab/abcdef...    a file or a dump, by its digest: what is there is not written again
backups/NAME.json       a manifest; without one there is no backup
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol, cast

import msgspec

from include.backups.manifest import File, Manifest, Piece
from include.backups.trees import PIECE, Tree
from include.doctor.findings import public
from include.errors import ArtefactError, ConfigError
from include.object_stores import explained, filesystem, is_remote
from include.retention.left_behind import remove_aside

DAMAGED = (
    "restore an earlier one (`--backup NAME`); where its installation still stands, `evergreen "
    "backup TARGET --verify` writes anew what is damaged"
)
TRIES = 3  # to read a file that is written anew meanwhile
_decode_file = msgspec.json.Decoder(File).decode
_encode = msgspec.json.Encoder().encode


class Pieces(Protocol):
    """What keeps pieces; of a move nothing is copied twice, so it only remembers where they are."""

    def keep(self, tree: Tree, path: str) -> Piece:
        """Keep a file of a tree."""

    def keep_text(self, lines: Iterable[bytes]) -> tuple[int, Piece]:
        """Keep lines, compressed; return how many there are."""

    def open(self, piece: Piece) -> IO[bytes]:
        """Open a piece."""

    def has(self, piece: Piece) -> bool:
        """Tell whether a piece is kept."""


class Repository:
    """A folder or an object store that holds backups."""

    def __init__(self, uri: str) -> None:
        """Name it; it is made with the first backup."""
        root = uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().resolve())
        self.tree = Tree("backup", root.removeprefix("file://"))

    def has(self, piece: Piece) -> bool:
        """Tell whether a piece is kept, by its size."""
        return self.tree.size_of(_place(piece.digest)) == piece.bytes

    def is_whole(self, piece: Piece) -> bool:
        """Tell whether a piece is kept and has its digest.

        Raises:
            SourceError: it cannot be read.
        """
        with self._explained("cannot be read"):
            try:
                with self.tree.read(_place(piece.digest)) as source:
                    return _digest_of(source) == piece
            except FileNotFoundError:
                return False

    def remove(self, piece: Piece) -> None:
        """Remove a piece, if it is there.

        Raises:
            SourceError: it cannot be removed.
        """
        system, base = filesystem(self.tree.root)
        with self._explained("cannot be written"), contextlib.suppress(FileNotFoundError):
            system.rm_file(f"{base}/{_place(piece.digest)}")

    def keep(self, tree: Tree, path: str) -> Piece:
        """Keep a file of a tree, unless its bytes are kept already.

        Raises:
            ArtefactError: it changes all the time.
            OSError: it cannot be read, or not be kept.
        """
        for left in reversed(range(TRIES)):
            with tree.read(path) as source:
                piece = _digest_of(source)
            if self.has(piece):
                break
            try:
                with tree.read(path) as source, self.tree.written(_place(piece.digest)) as target:
                    copy_verified(source, target, piece, f"{tree.name}/{path}")
                break
            except ArtefactError:  # a report was written anew in between
                if not left:
                    raise
        return piece

    def keep_text(self, lines: Iterable[bytes]) -> tuple[int, Piece]:
        """Keep lines, compressed; return how many there are.

        They are written under a name that does not count until their digest is known.
        """
        count, compressed = 0, _Spool()
        # Without the time in it: equal rows are an equal piece, and kept once.
        kept = cast(IO[bytes], compressed)
        with gzip.GzipFile(fileobj=kept, mode="wb", compresslevel=3, mtime=0) as text:
            for line in lines:
                text.write(line + b"\n")
                count += 1
        piece = compressed.piece()
        with self._explained("cannot be written"), compressed.read() as source:
            if not self.has(piece):
                with self.tree.written(_place(piece.digest)) as target:
                    copy_verified(source, target, piece, "a table")
        return count, piece

    def open(self, piece: Piece) -> IO[bytes]:
        """Open a piece.

        Raises:
            ArtefactError: it is not there.
        """
        try:
            return self.tree.read(_place(piece.digest))
        except FileNotFoundError:
            raise ArtefactError(
                f"{self.tree.root} lacks {piece.digest[:16]} of its backup; {DAMAGED}"
            ) from None

    def write(self, manifest: Manifest) -> None:
        """Put a manifest in place: from now on there is this backup."""
        with (
            self._explained("cannot be written"),
            self.tree.written(f"backups/{manifest.name}.json") as file,
        ):
            file.write(manifest.sealed())

    def names(self) -> list[str]:
        """Return the names of the backups, the oldest first."""
        found = Tree("backups", self.tree.root, ("backups",)).files()
        return sorted(
            each.path.removeprefix("backups/").removesuffix(".json")
            for each in found
            if each.path.endswith(".json")
        )

    def manifest(self, name: str = "") -> Manifest:
        """Return a backup, by default the newest.

        Raises:
            ConfigError: there is none.
            ArtefactError: its manifest is damaged.
        """
        names = self.names()
        wanted = name or (names[-1] if names else "")
        if wanted not in names:
            there = f"there are {', '.join(names[-5:])}" if names else "there is none"
            raise ConfigError(
                f"{self.tree.root} holds no backup {wanted}".rstrip()
                + f"; {there} (`evergreen backup TARGET` takes one)"
            )
        where = f"backups/{wanted}.json"
        with self._explained("cannot be read"), self.tree.read(where) as file:
            content = file.read()
        return Manifest.opened(content, self.place_of(wanted))

    def place_of(self, name: str) -> str:
        """Return where the manifest of a backup is, as people find it."""
        return f"{public(self.tree.root)}/backups/{name}.json"

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(self.tree.root, what, "mend that, then run it again")

    def forget(self, keep: int, *, now: float) -> tuple[int, int]:
        """Remove all but the newest backups, and pieces that none needs; return how many of each.

        So go pieces that were not written to their end, a day ago at `now` or longer. Only whoever
        takes a backup calls it: a piece of one that another is taking would go.

        Raises:
            ArtefactError: one that is to stay is damaged, so what it needs is not known; all stay.
            SourceError: the place cannot be read or written.
        """
        names = self.names()
        gone, kept = names[: -keep or None], names[-keep:]
        needed: set[str] = set()
        for name in kept:
            try:
                manifest = self.manifest(name)
                needed.update(piece.digest for piece in pieces_of(manifest))
                needed.update(file.digest for file in files_of(self, manifest))
            except ArtefactError as error:
                raise ArtefactError(
                    f"no older backup is removed, since {name} cannot be read: {error}. If that "
                    f"does not help, remove {self.place_of(name)}"
                ) from None
        system, base = filesystem(self.tree.root)
        with self._explained("cannot be written"):
            for name in gone:
                system.rm_file(f"{base}/backups/{name}.json")
            unneeded = [
                each.path
                for each in Tree("objects", self.tree.root, ("objects",)).files()
                if each.path.rpartition("/")[2] not in needed
            ]
            for path in unneeded:
                system.rm_file(f"{base}/{path}")
            return len(gone), len(unneeded) + self._remove_unfinished(now)

    def _remove_unfinished(self, now: float) -> int:
        """Remove what a killed backup left half-written in a folder; return how many files."""
        if is_remote(self.tree.root):
            return 0  # an upload is there as a whole or not at all
        root = Path(self.tree.root)
        return sum(remove_aside(root / name, now) for name in ("objects", "backups"))


class InPlace:
    """Pieces that stay where they are, for a move; only dumps are written, to a scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._texts = Repository(str(scratch))
        self._files: dict[str, tuple[Tree, str]] = {}

    def keep(self, tree: Tree, path: str) -> Piece:
        """Remember where a file is."""
        with tree.read(path) as source:
            piece = _digest_of(source)
        self._files[piece.digest] = (tree, path)
        return piece

    def keep_text(self, lines: Iterable[bytes]) -> tuple[int, Piece]:
        """Keep lines, compressed; return how many there are."""
        return self._texts.keep_text(lines)

    def open(self, piece: Piece) -> IO[bytes]:
        """Open a piece where it is."""
        if piece.digest not in self._files:
            return self._texts.open(piece)
        tree, path = self._files[piece.digest]
        return tree.read(path)

    def has(self, piece: Piece) -> bool:
        """Tell whether a piece is known."""
        return piece.digest in self._files or self._texts.has(piece)


def pieces_of(manifest: Manifest) -> Iterator[Piece]:
    """Yield the pieces that a manifest names itself."""
    yield manifest.files
    for dump in (manifest.records, manifest.mlflow):
        if dump is not None:
            yield from (table.piece for table in dump.tables.values())


def files_of(pieces: Pieces, manifest: Manifest) -> Iterator[File]:
    """Yield the files of a backup.

    Raises:
        ArtefactError: their list is damaged.
    """
    for line in lines_of(pieces, manifest.files, "the list of files"):
        yield _decode_file(line)


def file_line(file: File) -> bytes:
    """Return a file as a line of the list."""
    return _encode(file)


def lines_of(pieces: Pieces, piece: Piece, what: str) -> Iterator[bytes]:
    """Yield the lines of a piece, once all of it is known to have its digest.

    Raises:
        ArtefactError: it has not.
    """
    with pieces.open(piece) as source:
        if _digest_of(source) != piece:
            raise ArtefactError(f"{what} does not have its digest; {DAMAGED}")
    with pieces.open(piece) as source, gzip.GzipFile(fileobj=source) as text:
        for line in text:
            yield line.rstrip(b"\n")


def copy_verified(source: IO[bytes], target: IO[bytes], piece: Piece, what: str) -> None:
    """Copy bytes, and refuse them at the end unless they are those of a piece.

    Raises:
        ArtefactError: they are others; the caller must not put them in place.
    """
    digest, size = hashlib.sha256(), 0
    while part := source.read(PIECE):
        digest.update(part)
        size += len(part)
        target.write(part)
    if (digest.hexdigest(), size) != (piece.digest, piece.bytes):
        raise ArtefactError(
            f"{what} does not have its digest: it is damaged, or was changed meanwhile: run it "
            f"again, or {DAMAGED}"
        )


def _digest_of(source: IO[bytes]) -> Piece:
    digest, size = hashlib.sha256(), 0
    while part := source.read(PIECE):
        digest.update(part)
        size += len(part)
    return Piece(digest.hexdigest(), size)


def _place(digest: str) -> str:
    return f"objects/{digest[:2]}/{digest}"


class _Spool:
    """Takes bytes into memory, and what is more into a temporary file; knows their digest."""

    def __init__(self) -> None:
        import tempfile

        self._file = tempfile.SpooledTemporaryFile(max_size=8 * PIECE)  # noqa: SIM115 - read again
        self._digest, self._bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def piece(self) -> Piece:
        return Piece(self._digest.hexdigest(), self._bytes)

    @contextlib.contextmanager
    def read(self) -> Iterator[IO[bytes]]:
        with self._file:
            self._file.seek(0)
            yield cast(IO[bytes], self._file)
