"""Packages in place under `<home>/bento`: BentoML's folders, exports, and our receipts.

A package counts by its receipt, which comes last and holds the digest of every file. What has no
receipt, or other files than its receipt says, is no Bento of ours.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from include.config.settings import Settings
from include.files import write_text
from include.models.bento_archive import move_in
from include.models.bento_sources import receipt_path
from include.models.kinds import ModelKind
from include.packaging.shipped import serving_digest, version_part
from include.records.records import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Package:
    """A Bento that is in place, as its receipt says.

    `files` holds the digest of every file of model, Bento and export, by its path below the folder
    of all Bentos, and `export` that of the export.
    """

    bento_tag: str
    model_tag: str
    model_digest: str
    code_digest: str
    export: str
    files: dict[str, str]


def find_package(
    settings: Settings, use_case: str, model_digest: str, kind: ModelKind
) -> Package | None:
    """Return the package of a model with the code of now, or None.

    It counts as missing also where its receipt is no receipt, or its files are not those that the
    receipt names.
    """
    home = settings.home / "bento"
    try:
        receipt = receipt_path(
            settings.home, use_case, version_part(model_digest, kind)
        ).read_text()
        package = Package(**json.loads(receipt))
        # By name: versions before recorded the whole path, of a home that may have been moved.
        package = replace(package, export=f"exports/{Path(package.export).name}")
        files = _digests(home, package.bento_tag, package.model_tag, package.export)
    except (OSError, ValueError, TypeError):
        return None
    return package if package.files == files else None


def put_in_place(
    home: Path, staging: Path, model: Model, kind: ModelKind, built: dict[str, str]
) -> Package:
    """Move what was built into the real home: model, Bento and export by a rename each.

    The receipt comes last: what a kill leaves between two renames has none, and is replaced.
    """
    exported = home / "exports" / Path(built["export"]).name
    moves = [
        (
            _folder(staging / "home", "models", built["model_tag"]),
            _folder(home, "models", built["model_tag"]),
        ),
        (
            _folder(staging / "home", "bentos", built["bento_tag"]),
            _folder(home, "bentos", built["bento_tag"]),
        ),
        (Path(built["export"]), exported),
    ]
    move_in(moves, staging)
    export = f"exports/{exported.name}"
    package = Package(
        bento_tag=built["bento_tag"],
        model_tag=built["model_tag"],
        model_digest=model.model_digest,
        code_digest=serving_digest(kind),
        export=export,
        files=_digests(home, built["bento_tag"], built["model_tag"], export),
    )
    # `home` is the folder of all Bentos in the installation's home.
    receipt = receipt_path(home.parent, model.use_case, version_part(model.model_digest, kind))
    write_text(receipt, json.dumps(asdict(package), indent=1))
    log.info("%s: model %d is packaged as %s", model.use_case, model.version, package.bento_tag)
    return package


def _folder(home: Path, kind: str, tag: str) -> Path:
    name, _, version = tag.partition(":")
    return home / kind / name / version


def _digests(home: Path, bento_tag: str, model_tag: str, export: str) -> dict[str, str]:
    """Return the SHA-256 of every file of a package, by its path below the home."""
    roots = (_folder(home, "bentos", bento_tag), _folder(home, "models", model_tag), home / export)
    digests = {}
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            # Python writes there when the Bento is served.
            if path.is_file() and "__pycache__" not in path.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digests[str(path.relative_to(home))] = content
    return digests
