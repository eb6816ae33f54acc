"""What training keeps on disk: a bundle that is whole, and nothing of trainings that died."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import ArtefactError
from include.models.bundle import digest_of
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


def context(home: Path, *bundles: Path) -> Any:
    models = [SimpleNamespace(bundle=str(bundle), partition=KEY) for bundle in bundles]
    return SimpleNamespace(
        use_case=visits_use_case(),
        settings=SimpleNamespace(home=home),
        key=KEY,
        held=Held(),
        records=SimpleNamespace(models=SimpleNamespace(of=lambda name: models)),
    )


def test_a_bundle_is_written_whole_and_what_died_is_removed(tmp_path: Path) -> None:
    first = store_bundle(context(tmp_path), FILES, digest_of(FILES))
    assert {path.name: path.read_bytes() for path in (first / "bundle").iterdir()} == FILES
    (first.parent / ".half.3").mkdir()
    (first.parent / "unrecorded").mkdir()
    again = store_bundle(context(tmp_path, first / "bundle"), FILES, digest_of(FILES))
    assert again == first
    assert list(first.parent.iterdir()) == [first]


def test_in_a_home_that_was_moved_models_on_record_stay(tmp_path: Path) -> None:
    first = store_bundle(context(tmp_path), FILES, digest_of(FILES))
    other = {**FILES, "model.txt": b"another tree"}
    recorded = Path("/before") / first.relative_to(tmp_path) / "bundle"
    second = store_bundle(context(tmp_path, recorded), other, digest_of(other))
    assert sorted(first.parent.iterdir()) == sorted([first, second])


def test_a_bundle_that_was_changed_on_disk_is_refused(tmp_path: Path) -> None:
    folder = store_bundle(context(tmp_path), FILES, digest_of(FILES))
    (folder / "bundle" / "model.txt").write_bytes(b"other")
    with pytest.raises(ArtefactError):
        store_bundle(context(tmp_path, folder / "bundle"), FILES, digest_of(FILES))


def test_without_the_lease_nothing_is_written_or_removed(tmp_path: Path) -> None:
    given = context(tmp_path)
    given.held.lost = True
    with pytest.raises(RuntimeError, match="lost"):
        store_bundle(given, FILES, digest_of(FILES))
    assert not list(tmp_path.iterdir())
