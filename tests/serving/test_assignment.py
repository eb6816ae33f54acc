"""Who belongs to which arm: sticky, keyed, growing with the share, and even."""

from __future__ import annotations

import math
import secrets

import pytest

from include.predictions.entity_hash import entity_hasher
from include.serving import assignment
from include.serving.assignment import PAIRS, WHOLE, Assignment, arm_of

ENTITIES: list[int | str] = [0, -1, 7, 2**63 - 1, -(2**63), "a", "ä" * 40, "\x00", "\ud800"]
MANY = 100_000


@pytest.mark.parametrize("entity", ENTITIES)
def test_a_larger_share_only_adds_entities(entity: int | str) -> None:
    for _ in range(20):
        key = secrets.token_bytes(16)
        arms = [arm_of(key, entity, share) for share in range(0, WHOLE + 1, 250)]
        assert (arms[0], arms[-1]) == ("champion", "challenger")
        turned = arms.index("challenger")
        assert set(arms[turned:]) == {"challenger"}


@pytest.mark.parametrize("entity", ENTITIES)
def test_an_entity_stays_with_its_arm_and_may_be_excluded(entity: int | str) -> None:
    key = secrets.token_bytes(16)
    kept = Assignment(key)
    first = kept.place(entity)
    assert [kept.place(entity), Assignment(key).place(entity)] == [first, first]
    assert arm_of(key, entity, first) == "champion"
    assert arm_of(key, entity, first + 1) == "challenger"
    assert arm_of(key, entity, WHOLE, exclude=[entity]) == "champion"
    assert arm_of(key, entity, WHOLE, exclude=[str(entity)]) == "champion"


@pytest.mark.parametrize("share", [100, 500, 2500, 5000])
def test_the_share_of_many_entities_is_the_one_that_was_asked_for(share: int) -> None:
    """Within five standard deviations: of right code one run in a million fails."""
    places = Assignment(secrets.token_bytes(16))
    found = sum(places.place(number) < share for number in range(MANY))
    part = share / WHOLE
    assert abs(found - MANY * part) < 5 * math.sqrt(MANY * part * (1 - part))


def test_another_release_asks_other_entities_first() -> None:
    """Of two releases' 5 %, as many are in both as chance puts there: 5 % of 5 %."""
    one, other = (Assignment(secrets.token_bytes(16)) for _ in range(2))
    both = sum(one.place(n) < 500 and other.place(n) < 500 for n in range(MANY))
    assert abs(both - MANY * 0.0025) < 5 * math.sqrt(MANY * 0.0025)


def test_who_is_paired_is_as_often_in_either_arm() -> None:
    """By the same secret: of the 25 % that are paired, 5 % are the challenger's, as of all."""
    key = secrets.token_bytes(16)
    arms, pairs = Assignment(key, ["7"]), Assignment(key, ["7"], purpose=PAIRS)
    both = sum(arms.place(n) < 500 and pairs.place(n) < 2500 for n in range(MANY))
    assert abs(both - MANY * 0.0125) < 5 * math.sqrt(MANY * 0.0125)
    assert pairs.place(7) == WHOLE, "who is excluded is in no pair"


def test_a_row_without_an_entity_has_a_place_of_its_own() -> None:
    places = Assignment(b"k" * 16)
    rows = [b'{"income":%d}' % number for number in range(MANY // 10)]
    found = [places.place_of_row(row) for row in rows]
    assert found == [places.place_of_row(row) for row in rows]
    share = sum(place < 2500 for place in found) / len(rows)
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(rows))
    # The same text as an entity is somebody else.
    assert [places.place(row.decode()) for row in rows] != found


def test_what_is_kept_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "MAX_KNOWN", 8)
    places = Assignment(b"k" * 16)
    first = [places.place(number) for number in range(100)]
    assert len(places.known) <= 8
    assert [places.place(number) for number in range(100)] == first
    assert places.place("\ud800") == places.place("\ud800")


def test_the_excluded_are_known_by_their_keys_and_by_the_names_of_the_log() -> None:
    name_of = entity_hasher("k" * 32)
    places = Assignment(b"k" * 16, [name_of("7"), "9"], name_of)
    assert [places.place(entity) for entity in (7, "7", 9)] == [WHOLE] * 3
    assert places.place(8) < WHOLE
    assert Assignment(b"k" * 16, [name_of("7")]).place(7) < WHOLE, "by another node's key"
