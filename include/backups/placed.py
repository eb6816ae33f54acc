"""Where a file of a backup goes: in a folder an artefact lies otherwise than in an object store.

There each upload has a folder of its own, which the artefact's manifest names; in a folder its
files have one place for all.
"""

from __future__ import annotations

import json
import re

from include.artefacts.address import IMMUTABLE
from include.artefacts.manifest import FILES, NAME, Manifest
from include.backups.trees import Tree
from include.errors import ArtefactError

_KINDS = "|".join(IMMUTABLE)
_UPLOAD = re.compile(rf"^((?:{_KINDS})/[^/]+/[^/]+)/files-[0-9a-f]+/")
_MANIFEST = re.compile(rf"^(?:{_KINDS})/[^/]+/[^/]+/{re.escape(NAME)}$")


def place_of(tree: Tree, path: str) -> str:
    """Return the path that a file of a backup has in a tree."""
    return path if _is_as_it_was(tree) else _UPLOAD.sub(rf"\1/{FILES}/", path)


def is_other(tree: Tree, path: str) -> bool:
    """Tell whether a file has other bytes in this tree than in the backup."""
    return not _is_as_it_was(tree) and _MANIFEST.match(path) is not None


def bytes_of(path: str, content: bytes) -> bytes:
    """Return the bytes that the manifest of an artefact has in a folder.

    Raises:
        ArtefactError: it is none.
    """
    try:
        files = {str(name): str(digest) for name, digest in json.loads(content)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtefactError(f"{path} of the backup is no manifest of an artefact") from None
    return Manifest(files).content


def _is_as_it_was(tree: Tree) -> bool:
    return tree.name != "store" or "://" in tree.root
