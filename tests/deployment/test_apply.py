"""What a node must know of a use case goes into the records, and comes out as it went in."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from include.config.use_case_file import find
from include.deployment import apply
from include.deployment.apply import adopt_artefacts, adopt_use_cases, apply_use_case
from include.deployment.description import Description
from include.errors import ConfigError
from include.models.artefact import artefact_digest
from include.records.records import Model
from tests.builders.isolated import digest_of, write_bento, write_receipt
from tests.builders.serving import NAME, NOW, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_description_is_recorded_with_an_audit_row_and_only_where_it_changes(desk: Desk) -> None:
    case = find(NAME, desk.settings.usecase_dirs)
    before = desk.records.routes.get(NAME)
    assert Description.read(NAME, before.description) == Description.of(case)
    assert apply_use_case(desk.records, case, "anna", "again").generation == before.generation
    desk.write_use_case(unknown="score")
    changed = apply_use_case(
        desk.records, find(NAME, desk.settings.usecase_dirs), "anna", "score unknown accounts"
    )
    assert changed.generation == before.generation + 1
    entry = desk.records.audit.entries(NAME)[-1]
    assert (entry.action, entry.actor) == ("use_case.applied", "anna")
    assert entry.details["after"]["description"]["fallback"]["unknown"] == "score"
    assert desk.records.audit.verify() is None


def forget_descriptions(desk: Desk) -> None:
    """Leave the rows as a version wrote them whose nodes read files."""
    with desk.records.transaction() as session:
        session.execute(text("UPDATE routes SET description = NULL"))


def test_an_upgrade_takes_it_once_from_the_file(desk: Desk) -> None:
    forget_descriptions(desk)
    assert adopt_use_cases(desk.settings, desk.records) == [NAME]
    route = desk.records.routes.get(NAME)
    desk.write_use_case(unknown="score")
    assert adopt_use_cases(desk.settings, desk.records) == []
    assert desk.records.routes.get(NAME) == route


@pytest.mark.parametrize("text_of_file", [None, "name: loans\nmore: ["])
def test_an_upgrade_stops_with_the_name_of_a_file_that_cannot_be_read(
    desk: Desk, text_of_file: str | None
) -> None:
    forget_descriptions(desk)
    path = desk.usecases / f"{NAME}.yaml"
    path.unlink()
    if text_of_file is not None:
        path.write_text(text_of_file)
    with pytest.raises(ConfigError, match=str(path)):
        adopt_use_cases(desk.settings, desk.records)
    assert desk.records.routes.get(NAME).description is None


def test_what_a_later_version_adds_is_passed_over_and_what_is_none_is_refused(desk: Desk) -> None:
    plain = desk.records.routes.get(NAME).description
    assert plain is not None
    assert Description.read(NAME, {**plain, "more": 1}) == Description.read(NAME, plain)
    with pytest.raises(ConfigError, match="usecase apply loans"):
        Description.read(NAME, {"name": NAME})


OTHER_PINS = "sha256:of before"


def packaged_before(desk: Desk, version: int, tag: str, **changes: Any) -> Model:
    """Record a packaged model as a version did that knew no digest of its code."""
    model = desk.train(version, pins=OTHER_PINS)
    write_bento(desk.settings.home, tag)
    return desk.records.models.update(NAME, model.version, bento_tag=tag, **changes)


def test_an_upgrade_records_the_digests_of_what_a_receipt_vouches_for(desk: Desk) -> None:
    model = packaged_before(desk, 1, "loans_scorer:one")
    write_receipt(desk.settings.home, NAME, "loans_scorer:one")
    assert adopt_artefacts(desk.settings, desk.records) == [f"{NAME} 1"]
    code = digest_of(desk.settings.home, "loans_scorer:one")
    adopted = desk.records.models.get(NAME, 1)
    whole = artefact_digest(model.model_digest, code, OTHER_PINS)
    assert adopted == replace(model, bento_digest=code, artefact_digest=whole)
    entry = desk.records.audit.entries(NAME)[-1]
    assert (entry.action, entry.subject, entry.actor) == (
        "model.artefact_recorded",
        "1",
        "upgrade",
    )
    assert adopt_artefacts(desk.settings, desk.records) == []
    assert desk.records.audit.verify() is None


def test_a_digest_of_code_that_is_on_record_is_not_taken_anew(desk: Desk) -> None:
    """What was recorded is what was packaged; what lies there today may be something else."""
    packaged_before(desk, 1, "loans_scorer:one", bento_digest="sha256:recorded")
    assert adopt_artefacts(desk.settings, desk.records) == [f"{NAME} 1"]
    adopted = desk.records.models.get(NAME, 1)
    assert adopted is not None
    assert adopted.bento_digest == "sha256:recorded"


@pytest.mark.parametrize("damage", ["no receipt", "no text", "other file", "more", "less", "gone"])
def test_what_no_receipt_vouches_for_gets_no_digest(
    desk: Desk, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    packaged_before(desk, 1, "loans_scorer:one")
    packaged_before(desk, 2, "loans_scorer:two")
    home = desk.settings.home
    folder = home / "bento" / "bentos" / "loans_scorer" / "one" / "src"
    (folder / "more.py").write_text("")
    receipt = write_receipt(home, NAME, "loans_scorer:one")
    write_receipt(home, NAME, "loans_scorer:two")
    if damage == "no receipt":
        receipt.unlink()
    elif damage == "no text":
        receipt.write_text("[]")
    elif damage == "other file":
        (folder / "lane.py").write_text("print('other')")
    elif damage == "more":
        (folder / "numpy.py").write_text("")
    elif damage == "less":
        (folder / "more.py").unlink()
    else:
        folder.rename(home / "away")
    with caplog.at_level(logging.WARNING):
        assert adopt_artefacts(desk.settings, desk.records) == [f"{NAME} 2"]
    assert "model 1 may run in this node alone" in caplog.text
    left = desk.records.models.get(NAME, 1)
    assert left is not None
    assert (left.bento_digest, left.artefact_digest) == (None, None)


def told_by_adoption(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the adoption has logged; threads of other tests may log meanwhile."""
    return [one.getMessage() for one in caplog.records if one.name == apply.__name__]


def test_of_many_models_without_a_receipt_few_are_named(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for version in range(1, 7):
        packaged_before(desk, version, f"loans_scorer:v{version}")
    with caplog.at_level(logging.WARNING):
        assert adopt_artefacts(desk.settings, desk.records) == []
    told = told_by_adoption(caplog)
    assert len(told) == 4
    assert told[-1] == "the same is true of 3 more models"


def test_a_model_whose_files_were_collected_is_not_looked_for(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    packaged_before(desk, 1, "loans_scorer:one", collected_at=NOW)
    with caplog.at_level(logging.WARNING):
        assert adopt_artefacts(desk.settings, desk.records) == []
    assert told_by_adoption(caplog) == []
