"""Signatures: of one statement alone, by a key that was valid then, until it is revoked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import Settings
from include.errors import ArtefactError, Conflict
from include.models import public_keys
from include.models.private_key import open_signer, rotate
from include.models.public_keys import read_keys
from include.models.signing import needs_signature, refuse_release, sign, sign_here, verify
from include.records.models import Model

AT = datetime(2026, 3, 10, 12, 0, 0, 250_000, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = Model(
    "loans",
    1,
    "sha256:m",
    "2026-03-01",
    AT,
    "live",
    "a1b2",
    "/a/bundle",
    bento_tag="loans_scorer:one",
    bento_digest="sha256:b",
    pins="sha256:p",
    artefact_digest="sha256:a",
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, signing_key_days=30)


@pytest.fixture
def signed(settings: Settings) -> Model:
    return sign_here(settings, MODEL, at=AT, signed_as="packaging")


def refusal(settings: Settings, model: Model) -> str:
    with pytest.raises(ArtefactError) as refused:
        verify(model, read_keys(settings.signing_keys_folder))
    return str(refused.value)


def test_a_signature_names_its_key_and_its_time_and_is_believed(
    settings: Settings, signed: Model
) -> None:
    assert signed.signing_key == open_signer(settings, AT).id
    assert (signed.signed_at, signed.signed_as) == (AT.replace(microsecond=0), "packaging")
    verify(signed, read_keys(settings.signing_keys_folder))
    # Where its files lie, and how far it has got, is nobody's statement.
    moved = replace(signed, bundle="/b", bundle_uri="store:x", state="released", generation=7)
    verify(moved, read_keys(settings.signing_keys_folder))


@pytest.mark.parametrize(
    "change",
    [
        {"use_case": "visits"},
        {"version": 2},
        {"model_digest": "sha256:n"},
        {"bento_digest": "sha256:c"},
        {"bento_digest": None},
        {"artefact_digest": "sha256:b"},
        {"feature_set": "a1b3"},
        {"partition": "2026-03-02"},
        {"signed_as": "upgrade"},
        {"signed_at": AT.replace(microsecond=0) - DAY},
        {"signature": "AAAA"},
        {"signature": "no base64"},
    ],
    ids=str,
)
def test_a_row_of_which_one_thing_was_changed_is_refused(
    settings: Settings, signed: Model, change: dict[str, Any]
) -> None:
    assert "is not of what its row says" in refusal(settings, replace(signed, **change))


def test_the_signature_of_another_model_is_refused(settings: Settings, signed: Model) -> None:
    other = sign_here(settings, replace(MODEL, version=2), at=AT, signed_as="packaging")
    taken = replace(signed, signature=other.signature)
    assert "another model's" in refusal(settings, taken)


def test_what_nobody_has_signed_is_refused_and_says_how_it_is(settings: Settings) -> None:
    said = refusal(settings, MODEL)
    assert "model 1 is not signed" in said
    assert "evergreen run package_model --use-case loans --partition 2026-03-01" in said


def test_an_unknown_key_is_refused_also_under_a_known_ones_name(
    settings: Settings, signed: Model, tmp_path: Path
) -> None:
    stranger = open_signer(Settings(home=tmp_path / "other"), AT)
    theirs = sign(MODEL, stranger, at=AT, signed_as="packaging")
    assert f"{stranger.id}, which is unknown here" in refusal(settings, theirs)
    posing = replace(theirs, signing_key=signed.signing_key)
    assert "is not of what its row says" in refusal(settings, posing)


def test_a_key_that_expired_or_was_rotated_is_believed_for_what_it_signed_before(
    settings: Settings, signed: Model
) -> None:
    first = open_signer(settings, AT)
    rotate(settings, AT + DAY)
    verify(signed, read_keys(settings.signing_keys_folder))
    late = sign(MODEL, first, at=AT + 2 * DAY, signed_as="packaging")
    assert "was retired" in refusal(settings, late)
    second = open_signer(settings, AT + 2 * DAY)
    late = sign(MODEL, second, at=AT + 40 * DAY, signed_as="packaging")
    assert "expired" in refusal(settings, late)


def test_a_revoked_key_is_not_believed_whether_it_is_there_or_not(
    settings: Settings, signed: Model
) -> None:
    folder, key = settings.signing_keys_folder, str(signed.signing_key)
    public_keys.revoke(folder, key, at=AT, actor="anna", reason="lost")
    assert "which is revoked" in refusal(settings, signed)
    (folder / f"{key}.json").unlink()
    assert "which is revoked" in refusal(settings, signed)


def test_only_a_key_that_still_signs_releases(settings: Settings, signed: Model) -> None:
    refuse_release(settings, signed, AT + DAY)
    with pytest.raises(Conflict, match=r"expired .*releases nothing new.*keys rotate.*package_m"):
        refuse_release(settings, signed, AT + 31 * DAY)
    with pytest.raises(Conflict, match="is not signed"):
        refuse_release(settings, MODEL, AT)
    rotate(settings, AT + DAY)
    with pytest.raises(Conflict, match="was retired"):
        refuse_release(settings, signed, AT + 2 * DAY)


def test_what_is_signed_again_is_what_nobody_would_load_or_release(
    settings: Settings, signed: Model
) -> None:
    assert needs_signature(settings, MODEL, AT)
    assert not needs_signature(settings, signed, AT)
    rotate(settings, AT + DAY)
    assert needs_signature(settings, signed, AT + 2 * DAY)
    released = replace(signed, state="released")
    assert not needs_signature(settings, released, AT + 2 * DAY), "it serves, and goes on"
    folder, key = settings.signing_keys_folder, str(signed.signing_key)
    public_keys.revoke(folder, key, at=AT, actor="anna", reason="lost")
    assert needs_signature(settings, released, AT + 2 * DAY)
