"""What training keeps in the store: a bundle that is whole, under the digest of its files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.artefacts.address import Address
from include.artefacts.store import ArtefactStore
from include.training.model_store import store_bundle
from tests.builders.judging import KEY, visits_use_case

FILES = {"model.txt": b"tree", "schema.json": b"{}", "golden.json": b"[]"}


class Held:
    """A lease that is ours, or is not any more."""

    token = 7

    def __init__(self) -> None:
        self.lost = False

    def check(self) -> None:
        if self.lost:
            raise RuntimeError("the lease is lost")


def context(root: Path | str, home: Path) -> Any:
    return SimpleNamespace(
        use_case=visits_use_case(),
        store=ArtefactStore(str(root), home, cache_bytes=10**7),
        key=KEY,
        held=Held(),
    )


def test_a_bundle_is_written_whole_under_its_digest_and_once(tmp_path: Path) -> None:
    first = store_bundle(context(tmp_path, tmp_path), FILES)
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == FILES
    assert Address.parse(first.uri).is_digest
    assert Path(first.path) == first.folder, "where nodes of the version before find it"
    assert store_bundle(context(tmp_path, tmp_path), FILES) == first
    assert len(list((tmp_path / "bundles" / "visits").iterdir())) == 1


def test_a_bundle_that_was_changed_on_disk_is_put_right(tmp_path: Path) -> None:
    stored = store_bundle(context(tmp_path, tmp_path), FILES)
    (stored.folder / "model.txt").write_bytes(b"other")
    again = store_bundle(context(tmp_path, tmp_path), FILES)
    assert again == stored
    assert (again.folder / "model.txt").read_bytes() == b"tree"


def test_without_the_lease_nothing_is_written(tmp_path: Path) -> None:
    given = context(tmp_path, tmp_path)
    given.held.lost = True
    with pytest.raises(RuntimeError, match="lost"):
        store_bundle(given, FILES)
    assert not list(tmp_path.iterdir())
