"""What runs of a model has one digest; a row of which a part was changed is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from include.errors import ArtefactError
from include.models.artefact import artefact_digest, verify_row
from include.records.models import Model

MODEL = Model(
    use_case="loans",
    version=1,
    model_digest="sha256:m",
    partition="2026-03-01",
    as_of=datetime(2026, 3, 2, tzinfo=UTC),
    mode="live",
    feature_set="f",
    bundle="/bundle",
    pins="sha256:p",
    bento_digest="sha256:b",
    artefact_digest=artefact_digest("sha256:m", "sha256:b", "sha256:p"),
)


def test_digests_that_belong_together_pass_and_so_does_a_row_without() -> None:
    verify_row(MODEL)
    verify_row(replace(MODEL, artefact_digest=None))


@pytest.mark.parametrize("part", ["model_digest", "bento_digest", "pins", "artefact_digest"])
def test_whichever_part_is_changed_it_is_refused(part: str) -> None:
    with pytest.raises(ArtefactError, match="its row was changed"):
        verify_row(replace(MODEL, **{part: "sha256:other"}))


@pytest.mark.parametrize("part", ["bento_digest", "pins"])
def test_a_part_that_is_gone_is_a_changed_one(part: str) -> None:
    with pytest.raises(ArtefactError, match="its row was changed"):
        verify_row(replace(MODEL, **{part: None}))


def test_no_part_can_move_into_the_next() -> None:
    assert artefact_digest("ab", "c", "d") != artefact_digest("a", "bc", "d")
