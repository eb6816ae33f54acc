"""Models that a version before recorded by a path of its machine are taken into the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.clock import utc_now
from include.deployment.adoption import adopt_addresses, adopt_signatures
from include.models.public_keys import read_keys
from include.models.signing import COLUMNS, verify
from include.records.records import Model
from tests.builders.serving import NAME, ROW, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "before")


def test_a_recorded_path_becomes_an_address_and_the_path_that_older_nodes_read(
    desk: Desk,
) -> None:
    model = desk.train(1)
    (Path(model.bundle).parent / "reference.parquet").write_bytes(b"rows")
    assert adopt_addresses(desk.settings, desk.records) == [f"{NAME} 1"]
    found, store = desk.records.models.get(NAME, 1), ArtefactStore.of(desk.settings)
    assert found is not None
    assert store.get(str(found.bundle_uri)) == Path(found.bundle)
    assert (store.get(str(found.reference_uri)) / "reference.parquet").read_bytes() == b"rows"
    shutil.rmtree(desk.settings.home / "models")
    desk.record_route(champion=1)
    with desk.node() as node:
        node.serves(1)
        assert node.predict(features=ROW).status == 200
    assert adopt_addresses(desk.settings, desk.records) == [], "once"


@pytest.mark.parametrize("what", ["damaged", "gone", "not writable"])
def test_what_cannot_be_vouched_for_or_written_stays_a_path(
    desk: Desk, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = desk.train(1), desk.train(2)
    if what == "damaged":
        (Path(first.bundle) / "model.txt").write_bytes(b"other")
    elif what == "gone":
        shutil.rmtree(first.bundle)
    else:
        (desk.settings.home / "bundles").write_text("in the way")
    expected = [] if what == "not writable" else [f"{NAME} 2"]
    assert adopt_addresses(desk.settings, desk.records) == expected
    assert desk.records.models.get(NAME, 1) == first
    told = [one for one in caplog.records if one.levelname == "WARNING"]
    assert len(told) == (what == "not writable"), "what passes is told, once"


def unsigned(desk: Desk, version: int) -> Model:
    """Record a model that has served, as a version before left it."""
    desk.train(version)
    nobody = dict.fromkeys(COLUMNS)
    return desk.records.models.update(NAME, version, state="released", **nobody)


def is_signed(desk: Desk, version: int) -> bool:
    model = desk.records.models.get(NAME, version)
    assert model is not None
    if model.signature is not None:
        verify(model, read_keys(desk.settings.signing_keys_folder))
        assert model.signed_as == "upgrade"
    return model.signature is not None


def test_an_upgrade_signs_what_its_digests_vouch_for_and_that_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2):
        unsigned(desk, version)
    damaged = unsigned(desk, 3)
    (Path(damaged.bundle) / "model.txt").write_bytes(b"other")
    signed = adopt_signatures(desk.settings, desk.records, at=utc_now())
    assert signed == [f"{NAME} 1", f"{NAME} 2"]
    assert [is_signed(desk, version) for version in (1, 2, 3)] == [True, True, False]
    assert "model 3 is not signed" in caplog.text
    rows = desk.records.audit.entries(NAME, action="model.signed")
    found = desk.records.models.get(NAME, 1)
    assert found is not None
    assert [(row.subject, row.actor) for row in rows] == [("1", "upgrade"), ("2", "upgrade")]
    assert rows[0].details["key"] == found.signing_key
    assert rows[0].details["signed_as"] == "upgrade"
    # Whoever writes to the records from now on gets nothing signed by a restart.
    unsigned(desk, 4)
    assert adopt_signatures(desk.settings, desk.records, at=utc_now()) == []
    assert not is_signed(desk, 4)
    assert desk.records.audit.verify() is None


def test_a_model_that_is_away_is_signed_with_a_later_start(desk: Desk) -> None:
    first, _ = unsigned(desk, 1), unsigned(desk, 2)
    shutil.move(first.bundle, f"{first.bundle}.away")
    assert adopt_signatures(desk.settings, desk.records, at=utc_now()) == [f"{NAME} 2"]
    shutil.move(f"{first.bundle}.away", first.bundle)
    assert adopt_signatures(desk.settings, desk.records, at=utc_now()) == [f"{NAME} 1"]


def test_where_no_private_key_is_to_be_nothing_is_signed(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    unsigned(desk, 1)
    desk.settings.signing_key_path.unlink()
    assert adopt_signatures(desk.settings, desk.records, at=utc_now(), makes_key=False) == []
    assert "evergreen migrate" in caplog.text
    assert not desk.settings.signing_key_path.exists()
    assert adopt_signatures(desk.settings, desk.records, at=utc_now()) == [f"{NAME} 1"]
