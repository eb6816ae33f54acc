"""Loading: only what has the recorded digest reaches the kind that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ArtefactError
from include.models import lightgbm_kind
from include.models.bundle import digest_of
from include.models.kinds import Fitted
from include.models.loading import load_model


def test_a_model_is_loaded_from_the_bytes_that_were_verified(bundle: Path, fitted: Fitted) -> None:
    model = load_model(bundle, digest_of(fitted.files))
    assert model.digest == digest_of(fitted.files)
    (bundle / "model.txt").unlink()  # it is in memory
    assert model.check_golden() == 15


def test_nothing_is_loaded_of_another_digest(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(files: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(lightgbm_kind.KIND, "load", load)
    with pytest.raises(ArtefactError, match="recorded is sha256:other"):
        load_model(bundle, "sha256:other")
