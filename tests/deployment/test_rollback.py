"""A rollback in the records alone, as a serving node does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.deployment import rollback, rollout
from include.deployment.rollback import Order, record_rollback, take_back
from include.errors import ConfigError, Conflict, Unavailable
from include.records.schema import ModelRow
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


def test_the_version_of_a_challenger_is_taken_back_as_what_it_is(desk: Desk) -> None:
    desk.train(3)
    desk.record_route(challenger=3)
    order = Order("anna", "bad", version=3, request_id="r1")
    for changed in (True, False):
        taken = take_back(desk.records, NAME, order)
        assert (taken.changed, taken.route.champion, taken.route.challenger) == (changed, 2, None)
    entry = desk.records.audit.entries(NAME)[-1]
    assert (entry.subject, entry.details["of"]) == ("3", "challenger")


def test_a_challenger_that_is_promoted_meanwhile_is_taken_back_as_champion(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the row and the write the judge is faster: the rollback wins."""
    desk.train(3)
    desk.record_route(challenger=3)
    write = rollback.record_rollback

    def promoted_before(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(rollback, "record_rollback", write)
        desk.record_route(champion=3, previous=2, challenger=None)
        return write(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rollback, "record_rollback", promoted_before)
    taken = take_back(desk.records, NAME, Order("anna", "bad", version=3))
    assert (taken.changed, taken.route.champion) == (True, 2)


def test_a_challenger_that_has_become_champion_is_not_passed_over_as_done(desk: Desk) -> None:
    """`--challenger` says that the champion stays; whoever named the model must hear of it."""
    with pytest.raises(Conflict, match="model 2 is champion by now"):
        take_back(desk.records, NAME, Order("anna", "bad", version=2, of="challenger"))
    assert desk.records.routes.get(NAME).champion == 2
    gone = take_back(desk.records, NAME, Order("anna", "bad", version=1, of="challenger"))
    assert not gone.changed


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


def order(**changes: object) -> Order:
    return Order(**{"actor": "node token", "reason": "bad", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "named", [{"version": 2}, {"generation": 3}, {"version": 2, "request_id": "r"}]
)
def test_a_rollback_that_is_asked_for_twice_happens_once(
    desk: Desk, named: dict[str, object]
) -> None:
    """Whoever got no answer, or an error, asks again: the model before must not go too."""
    desk.train(0)
    with desk.records.transaction() as session:  # there is one more to go back to
        session.get_one(ModelRow, (NAME, 0)).state = "released"
    if "generation" in named:
        named = {"generation": desk.records.routes.get(NAME).generation}
    first = take_back(desk.records, NAME, order(**named))
    assert (first.changed, first.route.champion, first.route.previous) == (True, 1, 0)
    second = take_back(desk.records, NAME, order(**named))
    assert (second.changed, second.route) == (False, first.route)
    assert "before" in second.note or "nothing was taken back" in second.note
    assert len(desk.records.audit.entries(NAME, action="release.rolled_back")) == 1


def test_a_request_is_answered_with_the_generation_that_it_made(desk: Desk) -> None:
    first = take_back(desk.records, NAME, order(version=2, request_id="r-1", claim="anna"))
    desk.train(3)
    desk.record_route(challenger=3)
    again = take_back(desk.records, NAME, order(version=2, request_id="r-1"))
    assert (again.changed, again.generation) == (False, first.generation)
    entry = desk.records.audit.entries(NAME, action="release.rolled_back")[-1]
    assert (entry.actor, entry.details["claim"]) == ("node token", "anna")


def test_a_generation_that_passed_by_another_change_is_in_conflict(desk: Desk) -> None:
    seen = desk.records.routes.get(NAME).generation
    desk.record_route(weight=0)
    with pytest.raises(Conflict, match="name what serves now"):
        take_back(desk.records, NAME, order(generation=seen))
    assert desk.records.routes.get(NAME).champion == 2


@pytest.mark.parametrize("wrong", [{"reason": " ", "version": 2}, {}])
def test_without_a_reason_or_a_name_nothing_is_taken_back(
    desk: Desk, wrong: dict[str, object]
) -> None:
    with pytest.raises(ConfigError):
        take_back(desk.records, NAME, order(**wrong))


def test_aliases_that_cannot_be_mended_do_not_fail_what_was_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> None:
        raise Unavailable("MLflow is away")

    monkeypatch.setattr(rollout, "mirror_aliases_of", away)
    taken = rollout.rollback(desk.settings, NAME, order(version=2))
    assert taken.route.champion == 1
    assert "evergreen heal loans" in caplog.text
