"""A rollback in the records alone, as a serving node does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.deployment.rollback import record_rollback
from include.errors import Conflict
from tests.builders.serving import NAME, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Model 2 serves, after model 1."""
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    return desk


def test_the_model_before_serves_and_the_present_one_is_held(desk: Desk) -> None:
    route = record_rollback(desk.records, NAME, "anna", "too many complaints")
    assert (route.champion, route.previous) == (1, None)
    model = desk.records.models.get(NAME, 2)
    assert model is not None
    assert route.held == [model.model_digest]
    entry = desk.records.audit.entries(NAME)[-1]
    assert (entry.action, entry.subject, entry.actor) == ("release.rolled_back", "2", "anna")
    assert (entry.details["reason"], entry.details["of"]) == ("too many complaints", "champion")


def test_a_challenger_is_taken_back_and_the_champion_stays(desk: Desk) -> None:
    desk.train(3)
    desk.record_route(challenger=3)
    route = record_rollback(desk.records, NAME, "anna", "refused", of="challenger")
    assert (route.champion, route.challenger) == (2, None)


def test_who_has_seen_an_older_row_changes_nothing(desk: Desk) -> None:
    seen = desk.records.routes.get(NAME).generation
    desk.record_route(weight=0)
    with pytest.raises(Conflict, match="generation"):
        record_rollback(desk.records, NAME, "anna", "bad", expect_generation=seen)
    assert desk.records.routes.get(NAME).champion == 2


def test_without_a_model_before_it_the_champion_goes_on_serving(desk: Desk) -> None:
    record_rollback(desk.records, NAME, "anna", "bad")
    with pytest.raises(Conflict, match="no earlier champion"):
        record_rollback(desk.records, NAME, "anna", "bad")
