"""Trials: a damaged model kills, or is refused by, a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ArtefactError, Unavailable
from include.models import trial
from include.models.bundle import bundle_digest
from include.models.kinds import Fitted
from include.models.loading import load_model
from tests.builders.bundles import try_bundle, write_bundle


def test_an_intact_bundle_loads_and_passes_its_trial(bundle: Path) -> None:
    digest = bundle_digest(bundle)
    try_bundle(bundle, digest)
    assert load_model(bundle, digest).digest == digest


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_cut_model_kills_at_most_the_trial(fitted: Fitted, tmp_path: Path, keep: float) -> None:
    """The digest is that of the cut file, so only the trial can find it; LightGBM dies of some
    of them.
    """
    text = fitted.files["model.txt"]
    folder = write_bundle(
        tmp_path / "cut", {**fitted.files, "model.txt": text[: int(len(text) * keep)]}
    )
    with pytest.raises((ArtefactError, Unavailable), match="trial"):
        try_bundle(folder, bundle_digest(folder))


def test_a_changed_leaf_with_a_fresh_digest_is_found_by_its_golden_rows(
    fitted: Fitted, tmp_path: Path
) -> None:
    lines = fitted.files["model.txt"].decode().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("leaf_value="))
    other_digits = str.maketrans("123456789", "234567891")
    lines[first] = lines[first].translate(other_digits)
    folder = write_bundle(tmp_path / "leaf", {**fitted.files, "model.txt": "".join(lines).encode()})
    with pytest.raises(ArtefactError, match="golden row 0"):
        try_bundle(folder, bundle_digest(folder))


def test_a_trial_that_hangs_is_ended(bundle: Path) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        try_bundle(bundle, bundle_digest(bundle), seconds=0.001)


def test_the_child_says_how_many_rows_were_asked_or_why_not(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = bundle_digest(bundle)
    assert trial.main([str(bundle), digest]) == 0
    assert capsys.readouterr().out == "golden 15\n"
    (bundle / "model.txt").write_text("tree")
    assert trial.main([str(bundle), digest]) == ArtefactError.exit_code
    assert "it was changed" in capsys.readouterr().err
