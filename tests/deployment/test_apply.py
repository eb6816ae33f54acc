"""What a node must know of a use case goes into the records, and comes out as it went in."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from include.config.use_case_file import find
from include.deployment.apply import adopt_use_cases, apply_use_case
from include.deployment.description import Description
from include.errors import ConfigError
from tests.builders.serving import NAME, Desk


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
