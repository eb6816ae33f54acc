"""Bundles: verified before they are loaded, and nothing is opened that is not allowed there."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from include.errors import ArtefactError
from include.models import bundle as bundles
from include.models.bundle import bundle_digest, digest_of, read_bundle, verify_bundle
from include.models.kinds import Fitted
from include.models.loading import load_model
from tests.builders.bundles import try_bundle


def test_the_digest_covers_names_lengths_and_contents(fitted: Fitted) -> None:
    """Files and order are those of the digests on record: an equal model keeps its own."""
    expected = hashlib.sha256()
    for name in ("model.txt", "schema.json", "golden.json"):
        expected.update(f"{name}\0{len(fitted.files[name])}\0".encode() + fitted.files[name])
    assert digest_of(fitted.files) == "sha256:" + expected.hexdigest()
    moved = {**fitted.files, "model.txt": fitted.files["model.txt"] + b"{"}
    moved["schema.json"] = fitted.files["schema.json"][1:]
    assert digest_of(moved) != digest_of(fitted.files)


def test_what_was_verified_is_what_is_given(bundle: Path, fitted: Fitted) -> None:
    assert verify_bundle(bundle, digest_of(fitted.files)) == fitted.files


@pytest.mark.parametrize("name", ["model.txt", "schema.json", "golden.json"])
def test_one_changed_byte_is_refused_before_loading(bundle: Path, name: str) -> None:
    digest = bundle_digest(bundle)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    for load in (load_model, verify_bundle, try_bundle):
        with pytest.raises(ArtefactError, match="recorded is"):
            load(bundle, digest)


def test_files_added_removed_or_renamed_are_refused(bundle: Path) -> None:
    digest = bundle_digest(bundle)
    (bundle / "notes.txt").write_text("x")
    with pytest.raises(ArtefactError, match=r"notes\.txt does not belong"):
        load_model(bundle, digest)
    (bundle / "notes.txt").unlink()
    (bundle / "golden.json").rename(bundle / "Golden.json")
    with pytest.raises(ArtefactError, match="does not belong"):
        load_model(bundle, digest)
    (bundle / "Golden.json").unlink()
    with pytest.raises(ArtefactError, match=r"golden\.json is missing"):
        load_model(bundle, digest)


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.joblib", "model.dill", "weights.pickle", "MODEL.PKL"]
)
def test_pickled_models_are_refused_by_type_and_never_opened(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "opened",))

    digest = bundle_digest(bundle)
    (bundle / name).write_bytes(pickle.dumps(Trap()))
    (bundle / name).chmod(0)
    with pytest.raises(ArtefactError, match="can run code"):
        try_bundle(bundle, digest)
    assert not (tmp_path / "opened").exists()


def test_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    digest = bundle_digest(bundle)
    (bundle / "model.txt").rename(tmp_path / "model.txt")
    (bundle / "model.txt").symlink_to(tmp_path / "model.txt")
    with pytest.raises(ArtefactError, match="link"):
        load_model(bundle, digest)
    (tmp_path / "other").symlink_to(bundle)
    with pytest.raises(ArtefactError, match="no folder"):
        load_model(tmp_path / "other", digest)


def test_a_file_of_another_kind_does_not_belong(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"only model\.txt, schema\.json, golden\.json do"):
        read_bundle(bundle)


def test_a_bundle_of_a_kind_that_is_not_known_is_not_read(bundle: Path) -> None:
    schema = json.loads((bundle / "schema.json").read_bytes())
    (bundle / "schema.json").write_text(json.dumps({**schema, "kind": "os"}))
    with pytest.raises(ArtefactError, match=r"'os' is no kind .* knows lightgbm.*train the model"):
        read_bundle(bundle)


def test_a_file_beyond_the_greatest_size_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "MAX_BYTES", 1000)
    with pytest.raises(ArtefactError, match=r"more than a model may have \(1000\)"):
        read_bundle(bundle)


def test_a_file_that_cannot_be_read_names_its_permissions(bundle: Path) -> None:
    (bundle / "golden.json").unlink()
    (bundle / "golden.json").mkdir()
    with pytest.raises(ArtefactError, match="no regular file"):
        bundle_digest(bundle)
