"""Bundles into models: verified by digest, loaded from the very bytes that were verified."""

from __future__ import annotations

from pathlib import Path

from include.models.bundle import verify_bundle
from include.models.kinds import ServedModel, load_files


def load_model(folder: str | Path, digest: str) -> ServedModel:
    """Verify a bundle and load its model.

    Raises:
        ArtefactError: the bundle is not the recorded one, or its kind is unknown or refuses it.
    """
    return load_files(verify_bundle(folder, digest))
