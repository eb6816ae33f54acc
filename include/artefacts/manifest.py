"""The manifest of an artefact: the digest of each of its files, whose own digest is its address.

It is written last. What has none is not whole, and nobody finds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from include.artefacts.address import Address, is_plain
from include.errors import ArtefactError

NAME = "manifest.json"
FILES = "files"  # the folder of the files beside it, but for what an object store says
# A file of the bytes that it is to have, or one that has them.
Content = bytes | Path
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """The SHA-256 of each file by its name; `folder` is where they lie, and no part of the digest.

    In an object store each upload has a folder of its own: what removes an earlier one never takes
    files of a later one.
    """

    files: Mapping[str, str]
    folder: str = FILES

    @classmethod
    def of(cls, files: Mapping[str, Content], folder: str = FILES) -> Self:
        """Return the manifest of files.

        Raises:
            ArtefactError: there is none, or the name of one leads elsewhere.
            OSError: one cannot be read.
        """
        wrong = [name for name in files if not is_plain(name)]
        if wrong or not files:
            raise ArtefactError(f"an artefact has files of plain names, not {wrong or 'none'}")
        return cls({name: digest_of(content) for name, content in files.items()}, folder)

    @classmethod
    def read(cls, content: bytes, address: Address) -> Self:
        """Return the manifest of an artefact, once it is the one that its address names.

        Raises:
            ArtefactError: it is not.
        """
        try:
            if len(content) > _MAX_BYTES:
                raise ValueError("it is too long")
            told = json.loads(content)
            found = cls({str(name): str(digest) for name, digest in told["files"].items()})
            folder = str(told.get("folder", FILES))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"{address}: its manifest cannot be read ({error})") from None
        if found.digest != address.rest or not is_plain(folder) or "/" in folder:
            raise ArtefactError(f"{address}: its manifest is another one's, or was changed")
        if wrong := [name for name in found.files if not is_plain(name)]:
            raise ArtefactError(
                f"{address}: its manifest names {wrong[0]!r}, which leads elsewhere"
            )
        return cls(found.files, folder)

    @property
    def digest(self) -> str:
        """The digest of all files; a name and its digest cannot run into the next."""
        total = hashlib.sha256(b"artefact\0")
        for name in sorted(self.files):
            total.update(f"{name}\0{self.files[name]}\0".encode())
        return total.hexdigest()

    @property
    def content(self) -> bytes:
        """Its bytes in a store."""
        files = dict(sorted(self.files.items()))
        return json.dumps({"files": files, "folder": self.folder}, indent=1).encode()


def digest_of(content: Content) -> str:
    """Return the SHA-256 of bytes or of a file.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
