"""A store in a folder and one behind S3: what holds of one holds of the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore

SMALL = 10_000_000


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Root of an empty store."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('s3_store').uri}/some/where"


@pytest.fixture
def store(root: str, tmp_path: Path) -> ArtefactStore:
    """The store as one machine has it."""
    return ArtefactStore(root, tmp_path / "home", cache_bytes=SMALL)


@pytest.fixture
def other(root: str, tmp_path: Path) -> ArtefactStore:
    """The same store as another machine has it."""
    return ArtefactStore(root, tmp_path / "other", cache_bytes=SMALL)
