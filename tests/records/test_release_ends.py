"""Rollbacks, holds and replays against a release under way, and two hands at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from include.config.settings import ROOT
from include.deployment.rollback import Late, Order, take_back, take_back_late
from include.errors import Conflict
from include.records.records import Records
from tests.records.builders import AT, lost_answer, model
from tests.records.released import asked, entry, in_step, requested, serve, watched


@pytest.fixture
def served(records: Records) -> Records:
    """Records in which model 2 serves and model 1 did; 3 and 4 are trained."""
    serve(records)
    return records


def states(records: Records) -> dict[int, str]:
    """Return the states of the releases, by the version."""
    return {one.challenger: one.state for one in records.releases.of("loans")}


@pytest.mark.parametrize("table", ["models", "releases", "routes", "audit"])
def test_a_release_whose_model_is_refused_ends_whole_or_not_at_all(
    served: Records, table: str
) -> None:
    """Whatever it was writing when it was killed, the withdrawal may be made again."""
    release = in_step(served, -1)
    before = (served.routes.get("loans"), served.audit.entries("loans"))
    with killed_while_writing(table), pytest.raises(RuntimeError, match="killed"):
        served.releases.abort(release, "golden rows", entry("withdrawn"), retire=True)
    assert served.releases.get("loans", release.id) == release
    assert (served.routes.get("loans"), served.audit.entries("loans")) == before
    assert [one.state for one in served.models.of("loans")][2] == "challenger"
    with lost_answer():
        ended = served.releases.abort(release, "golden rows", entry("withdrawn"), retire=True)
    assert (ended.state, served.routes.get("loans").challenger) == ("aborted", None)
    assert [one.state for one in served.models.of("loans")][2] == "retired"
    assert served.routes.get("loans").held == [], "packaged anew, it may be released"


@contextmanager
def killed_while_writing(table: str) -> Iterator[None]:
    """End whoever writes a row of a table, as a kill does: its transaction is rolled back."""

    def die(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith((f"UPDATE {table} ", f"INSERT INTO {table} ")):
            raise RuntimeError("killed")

    event.listen(Engine, "before_cursor_execute", die)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", die)


@pytest.mark.parametrize("step", [-1, 0, 2])
def test_a_persons_rollback_of_the_challenger_ends_its_release(served: Records, step: int) -> None:
    release = in_step(served, step)
    with lost_answer():
        route = served.routes.rollback(
            "loans", entry=entry("rollback", details={"reason": "odd"}), of="challenger"
        )
    ended = served.releases.get("loans", release.id)
    assert ended is not None
    assert (ended.state, ended.reason, ended.rolled_back_by_itself) == ("rolled_back", "odd", False)
    assert (route.challenger, route.share, route.mode, route.held) == (None, 0, None, ["sha256:3"])
    assert served.audit.entries(action="rollback")[-1].details["release"] == release.id
    assert served.releases.running("loans") is None
    with pytest.raises(Conflict, match="is rolled_back"):
        served.releases.advance(release, {"word": "pass"}, entry("advanced"))


def test_a_rollback_of_the_champion_aborts_what_was_judged_against_it(served: Records) -> None:
    release = in_step(served, 2)
    waiting = served.releases.wait("loans", **asked(served, 4), entry=entry("queued"))
    route = served.routes.rollback("loans", entry=entry("rollback"))
    ended = served.releases.get("loans", release.id)
    assert ended is not None
    assert (ended.state, ended.reason) == ("aborted", "rolled back meanwhile")
    assert (route.champion, route.challenger, route.share, route.held) == (
        1,
        None,
        0,
        ["sha256:2"],
    )
    assert states(served) == {3: "aborted", 4: "aborted"}
    details = served.audit.entries(action="rollback")[-1].details
    assert (details["aborted"], details["waited"]) == (release.id, waiting.id)
    with pytest.raises(Conflict, match="trained in generation 2, before the rollback"):
        requested(served, 3)


def test_a_watched_champion_and_the_release_after_it_go_together(served: Records) -> None:
    watched(served)
    served.models.add(model(5, generation=2))
    in_step(served, 1, 5)
    route = served.routes.rollback("loans", entry=entry("rollback"))
    assert (route.champion, route.release_id) == (2, None)
    assert states(served) == {3: "rolled_back", 5: "aborted"}


def test_the_watched_release_stays_where_the_next_one_is_taken_back(served: Records) -> None:
    before = watched(served)
    served.models.add(model(5, generation=2))
    release = in_step(served, 1, 5)
    served.releases.roll_back(release, "bad", entry("rolled_back"))
    route = served.routes.get("loans")
    assert (route.champion, route.release_id) == (3, before.id)
    (row,) = served.serving_rows().rows
    assert row.release is not None
    assert (row.release.id, row.release.state, row.release.step) == (before.id, "watched", 3)
    ended = served.releases.roll_back(before, "bad too", entry("rolled_back"), by_itself=True)
    assert (ended.state, served.routes.get("loans").champion) == ("rolled_back", 2)


def test_a_lifted_hold_leaves_a_release_under_way_alone(served: Records) -> None:
    first = in_step(served, 1)
    served.releases.roll_back(first, "bad", entry("rolled_back"))
    generation = served.routes.get("loans").generation
    served.models.add(model(5, generation=generation))
    release = in_step(served, 1, 5)
    before = served.routes.get("loans")
    route = served.routes.lift("loans", "sha256:3", entry=entry("lifted"))
    assert (route.held, route.share, route.release_id) == ([], 500, release.id)
    assert (route.generation, route.challenger) == (before.generation + 1, 5)
    release = served.releases.advance(release, {"word": "pass"}, entry("advanced"))
    served.releases.abort(release, "enough", entry("aborted"))
    assert in_step(served, 0, 3).state == "running", "it may be released again"


def test_lifting_the_hold_of_who_serves_leaves_it_released(records: Records) -> None:
    """A rollback that came late, of the only model there is, is a hold on the champion."""
    records.models.add(model(1))
    release = requested(records, 1)
    records.releases.promote(release, entry("promoted"), None)
    assert take_back_late(records, late("sha256:1")).held == ["sha256:1"]
    records.routes.lift("loans", "sha256:1", entry=entry("lifted"))
    assert records.models.get("loans", 1).state == "released"  # type: ignore[union-attr]


def late(digest: str, request: str = "r1", node: str = "n1") -> Late:
    """Return a rollback that a node carried out while the records were away."""
    return Late("loans", digest, 3, "me", "", "bad", request, AT.isoformat(), node)


@pytest.mark.parametrize("step", [-1, 1])
def test_a_replay_takes_the_challenger_back_with_its_release(served: Records, step: int) -> None:
    in_step(served, step)
    for _ in range(2):
        with lost_answer():
            route = take_back_late(served, late("sha256:3"))
        assert (route.champion, route.challenger, route.held) == (2, None, ["sha256:3"])
    assert states(served) == {3: "rolled_back"}
    (entry_,) = served.audit.entries(action="release.rolled_back")
    assert entry_.details["node"] == "n1"
    assert served.audit.entries(action="release.rolled_back_late") == []


def test_a_replay_of_a_model_that_was_promoted_meanwhile_takes_it_back(served: Records) -> None:
    """The node noted it as challenger; by the time of the replay it is champion."""
    watched(served)
    route = take_back_late(served, late("sha256:3"))
    assert (route.champion, route.held, states(served)) == (2, ["sha256:3"], {3: "rolled_back"})


def test_a_replay_leaves_what_was_released_meanwhile(served: Records) -> None:
    release = in_step(served, 1)
    watched_before = served.routes.rollback("loans", entry=entry("rollback"), of="challenger")
    assert (watched_before.held, release.challenger) == (["sha256:3"], 3)
    generation = served.routes.get("loans").generation
    served.models.add(model(5, generation=generation))
    running = in_step(served, 1, 5)
    route = take_back_late(served, late("sha256:9"))
    assert (route.champion, route.challenger, route.share) == (2, 5, 500), "the innocent stay"
    assert route.held == ["sha256:3", "sha256:9"]
    assert route.rollback_generation == generation, "nothing was taken back now"
    assert served.releases.running("loans") == running
    (entry_,) = served.audit.entries(action="release.rolled_back_late")
    assert entry_.details["digest"] == "sha256:9"
    assert served.releases.advance(running, {"word": "pass"}, entry("advanced")).step == 2


def test_a_replay_of_what_was_rolled_back_meanwhile_is_only_told(served: Records) -> None:
    watched(served)
    order = Order("me", "bad", version=3, request_id="over there")
    taken = take_back(served, "loans", order)
    assert taken.changed
    route = take_back_late(served, late("sha256:3"))
    assert (route.champion, route.held) == (2, ["sha256:3"])
    assert len(served.audit.entries(action="release.rolled_back_late")) == 1


def test_one_rollback_that_two_nodes_noted_takes_one_model_back(served: Records) -> None:
    watched(served)
    for node in ("n1", "n2"):
        route = take_back_late(served, late("sha256:3", f"r of {node}", node))
        assert (route.champion, route.previous) == (2, 1)
    actions = [row.action for row in served.audit.entries()][-2:]
    assert actions == ["release.rolled_back", "release.rolled_back_late"]


def test_one_request_that_two_nodes_noted_is_one(served: Records) -> None:
    """A command asks every node it knows, by one request id."""
    watched(served)
    for node in ("n1", "n2"):
        route = take_back_late(served, late("sha256:3", "of one command", node))
        assert route.champion == 2
    assert len(served.audit.entries(action="release.rolled_back")) == 1
    assert served.audit.entries(action="release.rolled_back_late") == []


def test_a_replay_into_a_use_case_that_was_reset_makes_nothing(served: Records) -> None:
    in_step(served, 1)
    served.forget("loans", entry=entry("use_case.reset"))
    assert take_back_late(served, late("sha256:3")).generation == 0
    assert (served.routes.names(), served.releases.of("loans")) == ([], [])


def test_two_replays_at_once_take_one_model_back(served: Records) -> None:
    watched(served)
    with ThreadPoolExecutor(8) as pool:
        entries = [late("sha256:3", f"r{number % 4}", f"n{number}") for number in range(8)]
        list(pool.map(lambda one: take_back_late(served, one), entries))
    route = served.routes.get("loans")
    assert (route.champion, route.held) == (2, ["sha256:3"])
    assert len(served.audit.entries(action="release.rolled_back")) == 1
    assert len(served.audit.entries(action="release.rolled_back_late")) == 3
    assert served.audit.verify() is None


def test_of_many_moves_at_once_exactly_one_is_made(served: Records) -> None:
    release = in_step(served, 1)
    releases = served.releases
    moves = [
        lambda: releases.advance(release, {"word": "pass"}, entry("moved")),
        lambda: releases.promote(release, entry("moved"), None),
        lambda: releases.abort(release, "x", entry("moved")),
        lambda: releases.roll_back(release, "x", entry("moved")),
        lambda: releases.suspend(release, entry("moved")),
        lambda: releases.pause(release, entry("moved")),
    ]

    def race(number: int) -> bool:
        try:
            moves[number % len(moves)]()
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(24))) == 1
    found = releases.get("loans", release.id)
    assert found is not None
    assert found.revision == release.revision + 1
    assert len(served.audit.entries(action="moved")) == 1
    assert len(served.audit.entries(action="moved.refused")) == 23
    assert served.audit.verify() is None


def test_of_many_requests_at_once_one_starts(served: Records) -> None:
    def race(number: int) -> bool:
        try:
            requested(served, 3 + number % 2)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(race, range(16)))
    assert won == 8, "the others of the same model are shown its release"
    (release,) = served.releases.of("loans")
    assert served.routes.get("loans").challenger == release.challenger
    assert len(served.audit.entries(action="requested")) == 1


RACER = """
import sys
from datetime import UTC, datetime
from include.errors import Conflict
from include.records.records import AuditEntry, Records
url, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
records, won = Records.open(url), []
def entry(number):
    return AuditEntry("race", "loans", name, name, {}, datetime.now(UTC), f"{name} {number}")
sys.stdin.readline()
for number in range(rounds):
    release = records.releases.running("loans")
    while release.revision < number + 3:
        release = records.releases.running("loans")
    try:
        if release.suspended:
            records.releases.resume(release, 1.0, entry(number))
        else:
            records.releases.suspend(release, entry(number))
        won.append(number)
    except Conflict:
        pass
print(won)
"""


@pytest.mark.slow
def test_of_two_processes_at_once_one_moves_a_release_fifty_times(records_url: str) -> None:
    records, rounds = Records.open(records_url), 50
    records.migrate()
    serve(records)
    release = in_step(records, 1)
    assert release.revision == 3
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, records_url, name, str(rounds)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [eval(racer.communicate(timeout=100)[0]) for racer in racers]
    found = records.releases.running("loans")
    assert found is not None
    moved = found.revision - release.revision
    assert moved == len(won[0]) + len(won[1]) == len(records.audit.entries(action="race"))
    assert moved >= rounds, "each round of whichever was first"
    assert found.gap_seconds == moved // 2
    assert records.routes.get("loans").generation == 5 + moved
    assert records.audit.verify() is None


def test_a_rollback_wins_over_a_promotion_in_flight(served: Records) -> None:
    """Fault 19: whichever comes first, nothing stands that the rollback was to take back."""
    release = in_step(served, 2)
    with ThreadPoolExecutor(2) as pool:
        promotion = pool.submit(served.releases.promote, release, entry("promoted"), None)
        back = pool.submit(served.routes.rollback, "loans", entry=entry("rollback")).result()
    route = served.routes.get("loans")
    assert back == route
    if promotion.exception() is None:
        assert (route.champion, route.held, states(served)) == (2, ["sha256:3"], {3: "rolled_back"})
    else:
        assert isinstance(promotion.exception(), Conflict)
        assert (route.champion, route.held, states(served)) == (1, ["sha256:2"], {3: "aborted"})
    assert served.audit.verify() is None
