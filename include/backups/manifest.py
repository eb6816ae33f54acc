"""What a backup is: one document that names all of it, with the digest of each part.

It is written last; what has none is no backup.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from include.errors import ArtefactError

FORMAT = 1


class Piece(msgspec.Struct, frozen=True):
    """Bytes that are kept under their SHA-256."""

    digest: str
    bytes: int


class File(msgspec.Struct, frozen=True):
    """A file of a tree, by its path below the tree's root."""

    tree: str
    path: str
    digest: str
    bytes: int
    immutable: bool = False


class Table(msgspec.Struct, frozen=True):
    """A table: how many rows, and the piece that holds them."""

    rows: int
    piece: Piece


class Dump(msgspec.Struct, frozen=True):
    """A database as it was at one moment, at a revision of its migrations."""

    revision: str
    tables: Mapping[str, Table]


class Manifest(msgspec.Struct, frozen=True):
    """A backup: databases as of its moment, and every file that these name.

    `files` is the piece that lists them; `audit` the newest row of the audit log and its hash.
    `missing` is what the records name and was not there, `UNSET` where all was.
    """

    format: int
    name: str
    at: str
    version: str  # the commit of the code
    epoch: int
    audit: tuple[int, str]
    records: Dump
    mlflow: Dump | None
    files: Piece
    file_count: int
    file_bytes: int
    use_cases: tuple[str, ...]
    home: str  # where records of an earlier version say that files are
    entity_key: str  # a fingerprint of the key by which the log hashes entities; "" without one
    missing: tuple[str, ...] | UnsetType = UNSET
    digest: str = ""

    def sealed(self) -> bytes:
        """Return the document with its own digest in it."""
        bare = msgspec.structs.replace(self, digest="")
        digest = hashlib.sha256(msgspec.json.encode(bare)).hexdigest()
        return msgspec.json.format(
            msgspec.json.encode(msgspec.structs.replace(bare, digest=digest))
        )

    @classmethod
    def opened(cls, content: bytes, where: str) -> Manifest:
        """Return what a document says.

        Raises:
            ArtefactError: it is damaged, or of a later version.
        """
        remedy = "restore an earlier one, or use the version that wrote it"
        try:
            made = msgspec.json.decode(content, type=cls)
        except (ValueError, RecursionError) as error:
            raise ArtefactError(f"{where} cannot be read ({error}); {remedy}") from None
        if made.format != FORMAT:
            raise ArtefactError(f"{where} has format {made.format}, this is {FORMAT}; {remedy}")
        bare = msgspec.structs.replace(made, digest="")
        if hashlib.sha256(msgspec.json.encode(bare)).hexdigest() != made.digest:
            raise ArtefactError(f"{where} was changed: it does not have its digest; {remedy}")
        return made
