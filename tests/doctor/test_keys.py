"""What the doctor says of the keys: which signs, until when, and what serves unsigned."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.doctor import keys
from include.doctor.examine import examine
from include.doctor.findings import Finding, Patient
from include.models import public_keys
from include.models.private_key import rotate
from include.models.signing import COLUMNS
from tests.builders.serving import NAME, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.train(1)
    made.train(2)
    made.record_route(champion=2, previous=1)
    return made


def examined(settings: Settings, *, days: int = 0) -> dict[str, Finding]:
    patient = Patient(settings, lambda: utc_now() + timedelta(days=days), seconds=60)
    return {one.thing: one for one in examine(patient, {"keys": keys.examine})}


def test_a_key_that_signs_is_told_with_its_end_and_is_warned_of_in_time(desk: Desk) -> None:
    found = examined(desk.settings)
    assert {one.verdict for one in found.values()} == {"ok"}
    assert "signs here until" in found["signing"].found
    assert found["serving"].found == "2 models that serve or may, all validly signed"
    assert examined(desk.settings, days=340)["signing"].verdict == "warn"
    ended = examined(desk.settings, days=366)
    assert (ended["signing"].verdict, "expired" in ended["signing"].found) == ("fail", True)
    assert ended["serving"].verdict == "ok", "it serves on"


def test_what_serves_and_is_not_validly_signed_is_named(desk: Desk) -> None:
    desk.records.models.update(NAME, 1, **dict.fromkeys(COLUMNS))
    found = examined(desk.settings)[f"{NAME} 1"]
    assert (found.verdict, found.found) == ("warn", "previous: model 1 is not signed")
    assert "package_model" in found.remedy
    champion = desk.records.models.get(NAME, 2)
    assert champion is not None
    folder, key = desk.settings.signing_keys_folder, str(champion.signing_key)
    public_keys.revoke(folder, key, at=utc_now(), actor="anna", reason="lost")
    told = examined(desk.settings)
    assert told["signing"].verdict == told[f"{NAME} 2"].verdict == "fail"
    assert told["revoked"].found == key
    rotate(desk.settings, utc_now())
    assert examined(desk.settings)["signing"].verdict == "ok"


def test_where_no_private_key_lies_the_public_ones_are_told(desk: Desk) -> None:
    desk.settings.signing_key_path.unlink()
    assert "signs elsewhere until" in examined(desk.settings)["signing"].found
    (desk.settings.signing_keys_folder / public_keys.REVOKED).unlink()
    (broken,) = examined(desk.settings).values()
    assert (broken.verdict, "list of revoked keys" in broken.found) == ("fail", True)


def test_a_new_home_has_no_key_yet(tmp_path: Path) -> None:
    found = examined(Settings(home=tmp_path))
    assert {name: one.verdict for name, one in found.items()} == {"signing": "ok"}
    assert list(tmp_path.iterdir()) == []
