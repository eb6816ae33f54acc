"""What is shipped: it loads a model alone, and its digest counts what it does, not what it says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.models.bundle import digest_of
from include.models.kinds import DEFAULT, kind_of
from include.packaging import shipped
from include.packaging.shipped import requirements, serving_digest, shipped_files, version_part
from tests.builders.bundles import write_bundle
from tests.builders.serving import bundle_files

KIND = kind_of(DEFAULT)


def copy_to(folder: Path) -> Path:
    for name, path in shipped_files(KIND).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / name)
    return folder


def test_what_is_shipped_loads_a_model_without_the_rest_of_the_tree(tmp_path: Path) -> None:
    source = copy_to(tmp_path / "src")
    files = bundle_files(1)
    bundle = write_bundle(tmp_path / "bundle", files)
    code = (
        "from include.models.loading import load_model\n"
        f"print(load_model({str(bundle)!r}, {digest_of(files)!r}).check_golden())\n"
        "import include; print(include.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["4", str(source / "include" / "__init__.py")]


def test_a_comment_is_the_same_bento_and_an_operator_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = serving_digest(KIND)
    shutil.copytree(
        ROOT / "include", tmp_path / "include", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(shipped, "ROOT", tmp_path)
    service = tmp_path / "include" / "packaging" / "bento" / "service.py"
    text = service.read_text()
    service.write_text(f"{text}\n# A remark.\n")
    assert serving_digest(KIND) == before
    service.write_text(text.replace("score >= self", "score > self"))
    assert serving_digest(KIND) != before


def test_another_version_of_a_library_is_another_bento(monkeypatch: pytest.MonkeyPatch) -> None:
    before = version_part("sha256:" + "a" * 64, KIND)
    assert before.startswith("a" * 16 + "-")
    monkeypatch.setattr(shipped, "version", lambda name: "0.0.1")
    assert requirements(KIND) == ["lightgbm==0.0.1", "numpy==0.0.1"]
    after = version_part("sha256:" + "a" * 64, KIND)
    assert after != before
    assert after.startswith("a" * 16 + "-")
