"""Where a bundle lies, and whether it is there at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.errors import Unavailable
from include.models.presence import find_bundle, find_folder, is_away
from include.records.models import Model
from tests.builders.bundles import write_bundle
from tests.builders.serving import NOW, bundle_files


def test_a_bundle_is_found_where_it_was_recorded_or_in_the_home_of_now(tmp_path: Path) -> None:
    home = tmp_path / "now"
    there = write_bundle(home / "models" / "loans" / "1", bundle_files(1))
    assert find_folder(str(there), tmp_path / "other") == str(there)
    before = "/srv/models/before/models/loans/1"
    assert find_folder(before, home) == str(there)
    assert find_folder("/srv/elsewhere/loans/1", home) == "/srv/elsewhere/loans/1"
    assert find_folder("/srv/models/loans/2", home) == "/srv/models/loans/2"


def test_what_is_missing_is_away_and_what_is_wrong_is_not(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", bundle_files(1))
    assert not is_away(bundle)
    (bundle / "model.txt").write_text("damaged")
    assert not is_away(bundle)
    (bundle / "model.txt").unlink()
    assert is_away(bundle)
    assert is_away(tmp_path / "none")


def test_a_bundle_is_taken_from_the_store_by_its_address(tmp_path: Path) -> None:
    store = ArtefactStore(str(tmp_path / "mount"), tmp_path / "home", cache_bytes=10**7)
    uri = store.put("bundles", "loans", bundle_files(1))
    model = Model("loans", 1, "sha256:x", "k", NOW, "live", "f", "/elsewhere", bundle_uri=uri)
    assert find_bundle(store, model) == str(store.get(uri))
    (tmp_path / "mount").rename(tmp_path / "other-mount")
    with pytest.raises(Unavailable, match="is not in"):
        find_bundle(store, model)
    moved = ArtefactStore(str(tmp_path / "other-mount"), tmp_path / "home", cache_bytes=10**7)
    assert find_bundle(moved, model) == str(moved.get(uri))
    there = write_bundle(tmp_path / "elsewhere", bundle_files(1))
    assert find_bundle(store, replace(model, bundle=str(there))) == str(there)


def test_a_bundle_of_versions_before_is_found_by_its_address_in_the_store_or_the_home(
    tmp_path: Path,
) -> None:
    store = ArtefactStore(str(tmp_path / "mount"), tmp_path / "home", cache_bytes=10**7)
    uri = "store:models/loans/2026-03-01/0123456789abcdef/bundle"
    model = Model("loans", 1, "sha256:x", "k", NOW, "live", "f", "/before/b", bundle_uri=uri)
    assert find_bundle(store, model) == "/before/b", "is away"
    for root in ("home", "mount"):  # the store comes first
        folder = tmp_path / root / "models/loans/2026-03-01/0123456789abcdef/bundle"
        write_bundle(folder, bundle_files(1))
        assert find_bundle(store, model) == str(folder)
