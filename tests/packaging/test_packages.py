"""Packages in place: a receipt that names every file, and nothing without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.models.kinds import DEFAULT, kind_of
from include.packaging.packages import Package, find_package, put_in_place
from include.packaging.shipped import version_part
from include.records.records import Model
from tests.builders.serving import NOW

KIND = kind_of(DEFAULT)
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def build(settings: Settings, text: str = "code") -> Package:
    """Put in place what a build would have left in its staging folder."""
    version = version_part(DIGEST, KIND)
    staging = settings.home / "bento" / "staging" / "one"
    model = staging / "home" / "models" / "shop_model" / version
    bento = staging / "home" / "bentos" / "shop_scorer" / version
    for folder, name in ((model, "model.yaml"), (bento, "service.py")):
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    export = staging / f"shop_scorer-{version}.bento"
    export.write_text(text)
    built = {
        "bento_tag": f"shop_scorer:{version}",
        "model_tag": f"shop_model:{version}",
        "export": str(export),
    }
    trained = Model("shop", 1, DIGEST, "2026-03-01", NOW, "live", "set", "bundle")
    return put_in_place(settings.home / "bento", staging, trained, KIND, built)


def find(settings: Settings) -> Package | None:
    return find_package(settings, "shop", DIGEST, KIND)


def test_what_is_in_place_is_found_with_the_digest_of_every_file(settings: Settings) -> None:
    assert find(settings) is None
    package = build(settings)
    assert find(settings) == package
    version = version_part(DIGEST, KIND)
    assert set(package.files) == {
        f"bentos/shop_scorer/{version}/service.py",
        f"models/shop_model/{version}/model.yaml",
        f"exports/shop_scorer-{version}.bento",
    }
    latest = settings.home / "bento" / "bentos" / "shop_scorer" / "latest"
    assert latest.read_text() == version
    (latest.parent / version / "__pycache__").mkdir()
    (latest.parent / version / "__pycache__" / "service.pyc").write_bytes(b"x")
    assert find(settings) == package


@pytest.mark.parametrize("damage", ["changed", "removed", "added"])
def test_other_files_than_the_receipt_names_are_no_package(settings: Settings, damage: str) -> None:
    package = build(settings)
    export = settings.home / "bento" / package.export
    if damage == "changed":
        export.write_text("other")
    elif damage == "removed":
        export.unlink()
    else:
        name, version = package.bento_tag.split(":")
        (settings.home / "bento" / "bentos" / name / version / "more.py").write_text("x")
    assert find(settings) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bento_tag": 1}'])
def test_a_receipt_that_is_none_is_no_package(settings: Settings, text: str) -> None:
    build(settings)
    (receipt,) = (settings.home / "bento" / "receipts").iterdir()
    assert json.loads(receipt.read_text())["model_digest"] == DIGEST
    receipt.write_text(text)
    assert find(settings) is None


def test_what_lies_under_the_tag_is_replaced(settings: Settings) -> None:
    build(settings, "old")
    package = build(settings, "new")
    assert find(settings) == package
    assert (settings.home / "bento" / package.export).read_text() == "new"


def test_a_package_of_a_home_that_was_moved_is_found(settings: Settings, tmp_path: Path) -> None:
    """Versions before recorded the whole path of the export."""
    package = build(settings)
    (receipt,) = (settings.home / "bento" / "receipts").iterdir()
    told = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({**told, "export": f"/before/bento/{told['export']}"}))
    assert find(settings) == package
