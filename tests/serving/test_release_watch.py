"""What a node gives a challenger: nothing without a sign of the judge, by its own clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.deployment.release_plan import Objective
from include.errors import ConfigError
from include.predictions.entity_hash import entity_hasher
from include.records.records import Beat, ServingRow
from include.serving import release_watch
from include.serving.release_watch import ReleaseWatch
from include.serving.snapshot import ServedRelease
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("watch"))
    for version in (1, 2):
        made.train(version)
    made.record_route(champion=1)
    return made


@pytest.fixture(scope="module")
def row(desk: Desk) -> ServingRow:
    """A row in its step of 5 %, with a beat."""
    promised = Objective(availability=0.99)
    releasing = Releasing(desk, 2, 0, 500, exclude=["7"], watch=60.0, slo=promised)
    releasing.begin()
    releasing.advance()
    releasing.beat(60)
    (found,) = desk.records.serving_rows().rows
    assert found.release is not None
    return found


class Machine:
    """A watch and the clock that it goes by."""

    def __init__(self, **options: Any) -> None:
        self.now, self.epoch = 1000.0, 1
        self.watch = ReleaseWatch(NAME, clock=lambda: self.now, **options)

    def hear(self, row: ServingRow, number: int | None = None, **changes: Any) -> None:
        beat = row.beat
        assert beat is not None
        if number is not None:
            beat = replace(beat, beat=beat.beat + number, **changes)
        self.watch.hear(beat, self.epoch)

    def gives(
        self, row: ServingRow, *, is_tried: bool = True, taken_back: bool = False
    ) -> ServedRelease:
        release = self.watch.released(row, is_tried=is_tried, taken_back=taken_back)
        assert release is not None
        return release


def test_only_a_beat_newer_than_its_start_lets_a_node_begin(row: ServingRow) -> None:
    machine = Machine()
    assert "the records are away" in machine.gives(row).why
    machine.hear(row)
    assert "no beat of the judge since its start" in machine.gives(row).why
    machine.hear(row)  # the same one again is no sign
    assert machine.gives(row).share == 0
    machine.hear(row, 1)
    release = machine.gives(row)
    assert (release.mode, release.share, release.is_active, release.why) == (
        "canary",
        500,
        True,
        "",
    )
    assert row.release is not None
    assert (release.id, release.step, release.state) == (row.release.id, 1, "running")
    assert release.exclude == {"7"}
    assert release.availability == 0.99
    assert release.assign("7") == "champion"


def test_whom_a_plan_excludes_by_a_hash_stays_with_the_champion(row: ServingRow) -> None:
    """Where the key of the hash is not to be had, nobody is assigned."""
    name_of = entity_hasher("k" * 32)
    assert row.release is not None
    plan = {**row.release.plan, "exclude": [name_of("7")]}
    hashed = replace(row, release=replace(row.release, plan=plan))

    def unreadable() -> Callable[[str], str]:
        raise ConfigError("EVERGREEN_ENTITY_KEY is too short")

    for hasher, share in ((lambda: name_of, 500), (unreadable, 0)):
        machine = Machine(hasher=hasher)
        machine.hear(hashed)
        machine.hear(hashed, 1)
        release = machine.gives(hashed)
        assert (release.share, release.is_active) == (share, share > 0)
        assert release.assign("7") == "champion"
        assert ("is too short" in release.why) is (share == 0)


def test_past_the_deadline_the_share_is_nothing_until_a_newer_beat(row: ServingRow) -> None:
    machine = Machine()
    machine.hear(row)
    machine.hear(row, 1)
    machine.now += 59.9
    assert machine.gives(row).share == 500
    machine.now += 0.2
    silent = machine.gives(row)
    assert (silent.share, silent.is_active) == (0, False)
    assert "no new beat of the judge for 60 s" in silent.why
    machine.hear(row, 1)
    machine.hear(row, 0)  # an older one, of a look that was late
    assert machine.gives(row).share == 0
    machine.hear(row, 2, seconds=10.0)
    assert machine.gives(row).share == 500
    machine.now += 10
    assert machine.gives(row).share == 0


def test_a_clock_that_is_set_changes_nothing(row: ServingRow) -> None:
    """The instant that a beat names is the database's: no node reads it."""
    machine = Machine()
    machine.hear(row)
    beat = row.beat
    assert beat is not None
    machine.watch.hear(replace(beat, beat=beat.beat + 1, at=beat.at - timedelta(days=9999)), 1)
    assert machine.gives(row).share == 500
    assert release_watch.seconds_since_boot() > 0


def test_another_life_of_the_records_begins_anew(row: ServingRow) -> None:
    machine = Machine()
    machine.hear(row)
    machine.hear(row, 1)
    machine.epoch = 2
    machine.hear(row, 5)
    assert machine.gives(row).share == 0
    machine.hear(row, 6)
    assert machine.gives(row).share == 500


def test_a_beat_of_another_release_is_no_sign_for_this_one(row: ServingRow) -> None:
    machine = Machine()
    machine.hear(row)
    other = replace(row.beat or Beat(NAME, "", 0, 0, None), release_id="another")  # type: ignore[arg-type]
    machine.watch.hear(other, 1)
    assert machine.gives(row).share == 0


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ({"suspended": True}, {}, "is suspended"),
        ({}, {"is_tried": False}, "not ready on this node"),
        ({}, {"taken_back": True}, "not in the records yet"),
        ({"plan": {"kind": "of tomorrow"}}, {}, "cannot be read"),
    ],
)
def test_what_else_keeps_traffic_from_a_challenger_is_told(
    row: ServingRow, changes: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    machine = Machine()
    machine.hear(row)
    machine.hear(row, 1)
    assert row.release is not None
    release = machine.gives(replace(row, release=replace(row.release, **changes)), **options)
    assert (release.share, release.is_active) == (0, False)
    assert why in release.why


def test_the_guard_of_the_node_outranks_the_judge(row: ServingRow) -> None:
    latched = dict[tuple[str, str], str]()
    machine = Machine(guard=lambda use_case, release: latched.get((use_case, release), ""))
    machine.hear(row)
    machine.hear(row, 1)
    assert machine.gives(row).share == 500
    assert row.release is not None
    latched[NAME, row.release.id] = "errors"
    assert machine.gives(row).why == "this node's guard: errors"
    assert machine.gives(row).share == 0


def test_a_row_that_left_its_release_has_none(row: ServingRow) -> None:
    machine = Machine()
    machine.hear(row)
    for route in (
        replace(row.route, release_id=None),
        replace(row.route, challenger=None),
        replace(row.route, challenger=9),
    ):
        assert machine.watch.released(replace(row, route=route), is_tried=True) is None
    assert machine.watch.released(replace(row, release=None), is_tried=True) is None


def test_places_are_kept_from_step_to_step(row: ServingRow) -> None:
    machine = Machine()
    machine.hear(row)
    machine.hear(row, 1)
    first, second = machine.gives(row), machine.gives(row)
    assert first.places is second.places
    assert first == second


def test_a_release_that_is_only_tried_withholds_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    releasing = Releasing(desk, 2, 0, 500)
    machine = Machine()
    (row,) = desk.records.serving_rows().rows
    machine.watch.hear(row.beat, 1)
    tried = machine.gives(row, is_tried=False)
    assert (tried.state, tried.mode, tried.share, tried.why) == ("trying", None, 0, "")
    releasing.begin()
    releasing.beat(30)
    (row,) = desk.records.serving_rows().rows
    machine.watch.hear(row.beat, 1)
    mirrored = machine.gives(row)
    assert (mirrored.mode, mirrored.share, mirrored.is_active) == ("shadow", 0, True)
    releasing.advance()
    releasing.promote()
    (row,) = desk.records.serving_rows().rows
    watched = machine.gives(row)
    assert (watched.state, watched.mode, watched.why) == ("watched", None, "")


@pytest.mark.parametrize("key", [None, "", "no hex"])
def test_a_row_without_a_secret_assigns_nobody(row: ServingRow, key: str | None) -> None:
    machine = Machine()
    machine.hear(row)
    machine.hear(row, 1)
    assert machine.gives(row).share == 500
    release = machine.gives(replace(row, route=replace(row.route, release_key=key)))
    assert (release.share, release.is_active, "no secret" in release.why) == (0, False, True)
