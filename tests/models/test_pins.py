"""Serving pins: equal in another process, other with another library or another operation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config.settings import ROOT
from include.models import pins
from include.models.kinds import DEFAULT, kind_of
from include.models.pins import fits_here, serving_pins

KIND = kind_of(DEFAULT)


@pytest.fixture(autouse=True)
def _computed_anew() -> Iterator[None]:
    pins._digest.cache_clear()
    yield
    pins._digest.cache_clear()


def test_pins_are_equal_in_another_process() -> None:
    code = (
        "from include.models.kinds import DEFAULT, kind_of\n"
        "from include.models.pins import serving_pins\nprint(serving_pins(kind_of(DEFAULT)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == serving_pins(KIND)


def test_another_version_of_a_library_is_another_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    before = serving_pins(KIND)
    assert fits_here(before)
    assert not fits_here(None), "nobody has said what it needs"
    monkeypatch.setattr(pins, "version", lambda name: "0.0.1")
    pins._digest.cache_clear()
    assert serving_pins(KIND) != before
    assert not fits_here(before)


def test_a_comment_keeps_the_pins_and_an_operator_changes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = serving_pins(KIND)
    shutil.copytree(
        ROOT / "include", tmp_path / "include", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(pins, "ROOT", tmp_path)
    edited = tmp_path / "include" / "models" / "calibration.py"
    text = edited.read_text()
    edited.write_text(text.replace('"""Return the prob', '"""Give the prob') + "\n# A remark.\n")
    pins._digest.cache_clear()
    assert serving_pins(KIND) == before
    edited.write_text(text.replace("slope * raw", "slope + raw"))
    pins._digest.cache_clear()
    assert serving_pins(KIND) != before
