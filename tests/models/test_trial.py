"""Trials: a damaged model kills, or is refused by, a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from include.errors import ArtefactError, Unavailable
from include.models import trial
from include.models.bundle import bundle_digest
from include.models.kinds import DEFAULT, Fitted, kind_of
from include.models.loading import load_model
from include.models.pins import serving_pins
from include.serving.trials import try_model
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
    pins = serving_pins(kind_of(DEFAULT))
    assert trial.main([str(bundle), digest, pins]) == 0
    assert capsys.readouterr().out == "golden 15\n"
    (bundle / "model.txt").write_text("tree")
    assert trial.main([str(bundle), digest, pins]) == ArtefactError.exit_code
    assert "it was changed" in capsys.readouterr().err


def test_a_trial_by_other_code_than_the_nodes_is_no_trial(bundle: Path) -> None:
    """An upgrade has changed the files under a running node: what would be tried is another."""
    with pytest.raises(Unavailable, match="restart the node"):
        asyncio.run(try_model(str(bundle), bundle_digest(bundle), "sha256:of before", seconds=60))
