"""Feast is imported without its checks of types at run time, and typeguard stays as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from include.config.settings import ROOT

PROGRAM = """
import typeguard
before = typeguard.typechecked
import include.features.feast_offline_store
from feast import FeatureService
assert typeguard.typechecked is before
# What typeguard compiles has its check of arguments among its names.
names = FeatureService.__init__.__code__.co_names + FeatureService.__init__.__code__.co_varnames
print(any("check" in name for name in names))
"""


@pytest.mark.slow
def test_feasts_classes_are_not_compiled_anew_and_typeguard_is_as_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
