"""Releases on SQLite and PostgreSQL: every move, its refusals, its repetition, and races."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from include.errors import Conflict, EvergreenError
from include.records.audit import AuditEntry
from include.records.records import Records, Release
from include.records.release_rows import KEPT_VERDICTS
from include.records.schema import ReleaseRow, RouteRow
from tests.records.builders import lost_answer, model
from tests.records.released import PLAN, entry, in_step, requested, serve, watched


@pytest.fixture
def served(records: Records) -> Records:
    """Records in which model 2 serves and model 1 did; 3 and 4 are trained."""
    serve(records)
    return records


def test_a_requested_release_names_the_challenger_and_gives_it_nothing(served: Records) -> None:
    release = requested(served)
    assert (release.state, release.step, release.revision) == ("trying", 0, 1)
    assert (release.challenger, release.challenger_digest, release.champion) == (3, "sha256:3", 2)
    assert served.releases.running("loans") == release == served.releases.get("loans", release.id)
    route = served.routes.get("loans")
    assert (route.challenger, route.mode, route.share, route.weight) == (3, None, 0, 0.0)
    assert (route.release_id, len(route.release_key or "")) == (release.id, 32)
    assert (route.generation, route.watermark) == (3, "2026-03-02")
    (row,) = served.audit.entries(action="requested")
    assert row.details["release"] == release.id
    assert route.release_key not in str(row.details), "which is a secret"


def test_steps_are_gone_through_to_the_promotion_and_settled(served: Records) -> None:
    release = requested(served)
    release = served.releases.begin(release, entry("begun"))
    route = served.routes.get("loans")
    assert (release.state, route.mode, route.share, route.step) == ("running", "shadow", 0, 0)
    for step, share in ((1, 500), (2, 2500)):
        release = served.releases.advance(release, {"word": "pass"}, entry("advanced"))
        route = served.routes.get("loans")
        assert (release.step, route.step, route.mode, route.share, route.weight) == (
            step,
            step,
            "canary",
            share,
            share / 100,
        )
    with pytest.raises(EvergreenError, match="has 3 steps, no step 3"):
        served.releases.advance(release, {"word": "pass"}, entry("advanced"))
    release = served.releases.promote(release, entry("promoted"), {"entity": "customer"})
    route = served.routes.get("loans")
    assert (release.state, release.step, release.ended_at) == ("watched", 3, None)
    assert (route.champion, route.previous, route.challenger) == (3, 2, None)
    assert (route.mode, route.share, route.weight, route.release_key) == (None, 0, 0.0, None)
    assert (route.release_id, route.watermark) == (release.id, "2026-03-03")
    assert route.description == {"entity": "customer"}
    assert served.releases.running("loans") is None
    assert served.releases.watched("loans") == release
    release = served.releases.settle(release, entry("settled"))
    assert (release.state, release.ended_at is not None) == ("promoted", True)
    assert served.routes.get("loans").release_id is None
    actions = [row.action for row in served.audit.entries()][2:]
    assert actions == ["requested", "begun", "advanced", "advanced", "promoted", "settled"]
    assert served.audit.verify() is None


def test_the_rows_of_the_nodes_have_the_release_and_its_beat(served: Records) -> None:
    release = requested(served)
    (row,) = served.serving_rows().rows
    assert (row.release, row.beat) == (replace(release, revision=0), None)
    assert served.releases.beat("loans", "another", 60.0) == 1
    assert served.releases.beat("loans", release.id, 180.0) == 2
    (row,) = served.serving_rows().rows
    assert row.beat == served.releases.last_beat("loans")
    assert row.beat is not None
    assert (row.beat.beat, row.beat.seconds) == (2, 180.0)
    served.releases.abort(release, "not today", entry("aborted"))
    (row,) = served.serving_rows().rows
    assert (row.release, row.beat) == (None, None)


def traffic(records: Records) -> tuple[str | None, int, float]:
    """Return how a challenger is asked now."""
    route = records.routes.get("loans")
    return route.mode, route.share, route.weight


def audited(records: Records) -> list[str]:
    """Return the actions since the release was requested."""
    actions = [row.action for row in records.audit.entries()]
    return actions[actions.index("requested") + 1 :]


def test_a_plan_without_steps_is_promoted_as_soon_as_it_was_tried(served: Records) -> None:
    release = requested(served, plan={"steps": [], "watch": 60.0})
    with pytest.raises(EvergreenError, match="has 0 steps, no step 0"):
        served.releases.begin(release, entry("begun"))
    assert served.releases.running("loans") == release
    assert served.releases.promote(release, entry("promoted"), None).state == "watched"
    assert served.routes.get("loans").champion == 3


def test_a_first_release_shares_traffic_with_nobody(records: Records) -> None:
    records.models.add(model(1))
    release = requested(records, 1, description={"entity": "customer"})
    assert (release.champion, records.routes.get("loans").description) == (
        None,
        {"entity": "customer"},
    )
    with pytest.raises(Conflict, match=r"nobody serves.*promote the release"):
        records.releases.begin(release, entry("begun"))
    release = records.releases.promote(release, entry("promoted"), None)
    route = records.routes.get("loans")
    assert (route.champion, route.previous, route.watermark) == (1, None, "2026-03-01")
    with pytest.raises(Conflict, match="no earlier champion to go back to"):
        records.releases.roll_back(release, "bad", entry("rolled_back"))
    assert records.releases.watched("loans") == release


def test_what_is_watched_for_no_time_is_promoted_and_over(served: Records) -> None:
    release = in_step(served, 0, plan={**PLAN, "watch": 0.0})
    release = served.releases.promote(release, entry("promoted"), None)
    assert (release.state, release.ended_at) == ("promoted", release.entered_at)
    assert served.routes.get("loans").release_id is None
    assert served.releases.watched("loans") is None


def test_a_promotion_settles_the_release_that_was_watched(served: Records) -> None:
    first = watched(served)
    second = watched(served, 4)
    settled = served.releases.get("loans", first.id)
    assert settled is not None
    assert (settled.state, settled.reason) == ("promoted", f"followed by release {second.id}")
    assert served.audit.entries(action="promoted")[-1].details["settled"] == first.id
    route = served.routes.get("loans")
    assert (route.champion, route.previous, route.release_id) == (4, 3, second.id)


def test_a_suspended_release_gets_no_traffic_and_bakes_anew(served: Records) -> None:
    release = in_step(served, 1)
    entered = release.entered_at
    with pytest.raises(Conflict, match="is not suspended"):
        served.releases.resume(release, 1.0, entry("resumed"))
    release = served.releases.suspend(release, entry("suspended"))
    assert (release.suspended, release.step, traffic(served)) == (True, 1, (None, 0, 0.0))
    assert served.routes.get("loans").challenger == 3, "which stays loaded"
    for move in (
        lambda: served.releases.suspend(release, entry("suspended")),
        lambda: served.releases.advance(release, {"word": "pass"}, entry("advanced")),
    ):
        with pytest.raises(Conflict, match="is suspended"):
            move()
    release = served.releases.resume(release, 120.5, entry("resumed"))
    assert (release.suspended, release.step, release.gap_seconds) == (False, 1, 120.5)
    assert release.entered_at > entered
    assert traffic(served) == ("canary", 500, 5.0)
    release = served.releases.suspend(release, entry("suspended"))
    assert served.releases.resume(release, 10.0, entry("resumed")).gap_seconds == 130.5


def test_a_paused_release_keeps_its_traffic(served: Records) -> None:
    release = in_step(served, 1)
    before = served.routes.get("loans")
    release = served.releases.pause(release, entry("paused"))
    assert release.paused
    assert served.routes.get("loans") == before
    with pytest.raises(Conflict, match="is paused already"):
        served.releases.pause(release, entry("paused"))
    release = served.releases.unpause(release, entry("unpaused"))
    assert not release.paused
    with pytest.raises(Conflict, match="is not paused"):
        served.releases.unpause(release, entry("unpaused"))
    refused = served.audit.entries(action="paused.refused")[0]
    assert refused.details["release"] == release.id


def test_verdicts_are_kept_by_word_and_told_where_the_word_changes(served: Records) -> None:
    release = in_step(served, 1)
    for number, word in enumerate(["hold", "hold", "pass", "pass", "hold"]):
        verdict = {"word": word, "evidence": {"errors": number}}
        release = served.releases.note(release, verdict, entry(f"noted {number}"))
    kept = [(one["word"], one["evidence"]["errors"]) for one in release.verdicts[1:]]
    assert kept == [("hold", 1), ("pass", 3), ("hold", 4)]
    assert release.verdicts[1]["since"] < release.verdicts[1]["at"]
    assert [one["step"] for one in release.verdicts] == [0, 1, 1, 1]
    told = [action for action in audited(served) if action.startswith("noted")]
    assert told == ["noted 0", "noted 2", "noted 4"]
    release = served.releases.advance(release, {"word": "hold"}, entry("advanced"))
    release = served.releases.note(release, {"word": "hold"}, entry("noted again"))
    assert audited(served)[-1] == "noted again", "of another step it is another verdict"


def test_a_verdict_that_changes_no_word_is_kept_once_where_its_answer_was_lost(
    served: Records,
) -> None:
    """It leaves no audit row by which it could be recognised."""
    release = in_step(served, 0)
    release = served.releases.note(release, {"word": "hold", "n": 1}, entry("noted"))
    with lost_answer() as lost:
        noted = served.releases.note(release, {"word": "hold", "n": 2}, entry("noted"))
    assert (lost, noted.revision) == (["lost"], release.revision + 1)
    assert [one["n"] for one in noted.verdicts] == [2]
    assert audited(served) == ["begun", "noted"]


def test_no_more_verdicts_are_kept_than_a_row_should_hold(served: Records) -> None:
    release = in_step(served, 0)
    with served.transaction() as session:
        row = session.get_one(ReleaseRow, ("loans", release.id))
        old = {"step": 0, "since": "", "at": ""}
        row.verdicts = [{**old, "word": str(number)} for number in range(KEPT_VERDICTS)]
    release = served.releases.note(release, {"word": "hold"}, entry("noted"))
    assert len(release.verdicts) == KEPT_VERDICTS
    assert [release.verdicts[0]["word"], release.verdicts[-1]["word"]] == ["1", "hold"]


def test_an_aborted_release_holds_nothing_and_the_same_model_may_start_again(
    served: Records,
) -> None:
    first = in_step(served, 1)
    key = served.routes.get("loans").release_key
    ended = served.releases.abort(first, "not today", entry("aborted"))
    route = served.routes.get("loans")
    assert (ended.state, ended.reason, ended.ended_at is not None) == ("aborted", "not today", True)
    assert (route.challenger, route.held, route.rollback_generation) == (None, [], 0)
    assert (traffic(served), route.release_id, route.release_key) == ((None, 0, 0.0), None, None)
    assert served.audit.entries(action="aborted")[0].details["reason"] == "not today"
    again = requested(served)
    assert (again.id != first.id, again.step, again.state) == (True, 0, "trying")
    assert served.routes.get("loans").release_key not in (None, key), "other entities this time"
    assert [one.id for one in served.releases.of("loans")] == [again.id, first.id]
    assert served.releases.of("loans", limit=1) == [again]


def test_a_rolled_back_release_holds_its_digest_and_what_was_judged_before(
    served: Records,
) -> None:
    release = in_step(served, 1)
    ended = served.releases.roll_back(release, "NaN", entry("rolled_back"), by_itself=True)
    assert (ended.state, ended.reason, ended.rolled_back_by_itself) == ("rolled_back", "NaN", True)
    assert ended.revision == release.revision + 1
    route = served.routes.get("loans")
    assert (route.champion, route.challenger, route.held) == (2, None, ["sha256:3"])
    assert route.rollback_generation == route.generation
    assert served.models.get("loans", 3).state == "retired"  # type: ignore[union-attr]
    with pytest.raises(Conflict, match="on hold"):
        requested(served, 3)
    with pytest.raises(Conflict, match="judged in generation 2, before the rollback"):
        requested(served, 4, judged_generation=2)
    with pytest.raises(Conflict, match="trained in generation 2, before the rollback"):
        requested(served, 4)
    served.models.add(model(5, generation=route.generation))
    assert requested(served, 5).state == "trying"


def test_a_release_that_is_only_tried_is_rolled_back_too(served: Records) -> None:
    release = requested(served)
    served.releases.roll_back(release, "refused by all nodes", entry("rolled_back"))
    assert served.routes.get("loans").held == ["sha256:3"]


def test_a_watched_release_goes_back_to_what_served_before(served: Records) -> None:
    release = watched(served)
    ended = served.releases.roll_back(release, "burns", entry("rolled_back"), by_itself=True)
    route = served.routes.get("loans")
    assert (ended.state, route.champion, route.previous, route.held) == (
        "rolled_back",
        2,
        1,
        ["sha256:3"],
    )
    assert (route.release_id, route.watermark) == (None, "2026-03-03")
    with pytest.raises(Conflict, match=r"is rolled_back \(burns\), not trying or running or"):
        served.releases.roll_back(ended, "burns", entry("rolled_back"))


def test_two_bad_releases_and_a_good_one(served: Records) -> None:
    """Fault 21: the way back leads to the last good model, not to the one before."""
    for version in (3, 5):
        if version == 5:
            generation = served.routes.get("loans").generation
            served.models.add(model(5, generation=generation))
        bad = watched(served, version)
        served.releases.roll_back(bad, "bad", entry("rolled_back"))
    route = served.routes.get("loans")
    assert (route.champion, route.previous, route.held) == (2, 1, ["sha256:3", "sha256:5"])
    served.models.add(model(6, generation=route.generation))
    good = watched(served, 6)
    route = served.routes.get("loans")
    assert (route.champion, route.previous) == (6, 2)
    served.releases.settle(good, entry("settled"))
    states = [one.state for one in served.releases.of("loans")]
    assert states == ["promoted", "rolled_back", "rolled_back"]
    route = served.routes.rollback("loans", entry=entry("rollback"))
    assert (route.champion, route.previous) == (2, 1)
    assert [one.state for one in served.releases.of("loans")] == states, "ended before"


def test_instants_are_by_the_databases_clock(served: Records) -> None:
    before = served.releases.now()
    release = in_step(served, 1)
    assert before <= release.started_at <= release.entered_at <= served.releases.now()
    ended = served.releases.abort(release, "x", entry("aborted"))
    assert ended.ended_at is not None
    assert release.entered_at <= ended.ended_at <= served.releases.now()


Move = Callable[[Records, Release, AuditEntry], Release]
WATCHED = 3  # behind the last step
MOVES: dict[str, tuple[int, Move]] = {
    "begin": (-1, lambda records, one, by: records.releases.begin(one, by)),
    "advance": (0, lambda records, one, by: records.releases.advance(one, {"word": "pass"}, by)),
    "note": (0, lambda records, one, by: records.releases.note(one, {"word": "hold"}, by)),
    "pause": (0, lambda records, one, by: records.releases.pause(one, by)),
    "suspend": (1, lambda records, one, by: records.releases.suspend(one, by)),
    "promote": (1, lambda records, one, by: records.releases.promote(one, by, None)),
    "settle": (WATCHED, lambda records, one, by: records.releases.settle(one, by)),
    "abort": (1, lambda records, one, by: records.releases.abort(one, "x", by)),
    "roll_back": (1, lambda records, one, by: records.releases.roll_back(one, "x", by)),
    "roll_back watched": (
        WATCHED,
        lambda records, one, by: records.releases.roll_back(one, "x", by),
    ),
}


def each_move(records: Records) -> Iterator[tuple[str, Release, Move]]:
    """Yield each move with a release that it may be made on, in a use case made anew."""
    for name, (step, move) in MOVES.items():
        records.forget("loans", entry=entry("use_case.reset"))
        serve(records)
        yield name, watched(records) if step == WATCHED else in_step(records, step), move


def test_a_move_whose_answer_was_lost_happens_once(records: Records) -> None:
    for name, release, move in each_move(records):
        with lost_answer() as lost:
            moved = move(records, release, entry(name))
        assert (lost, moved.revision) == (["lost"], release.revision + 1), name
        assert moved == records.releases.get("loans", release.id)
        assert len(records.audit.entries(action=name)) == 1
        assert records.audit.entries(action=f"{name}.refused") == []
    assert records.audit.verify() is None


def test_a_move_that_is_named_happens_once_whoever_repeats_it(records: Records) -> None:
    for name, release, move in each_move(records):
        named = entry(name, once=name)
        first, route = move(records, release, named), records.routes.get("loans")
        assert move(records, release, named) == first, name
        assert records.routes.get("loans") == route
        assert len(records.audit.entries(action=name)) == 1


def test_a_move_on_an_older_sight_of_the_release_is_refused_and_on_record(
    records: Records,
) -> None:
    for name, release, move in each_move(records):
        records.releases.note(release, {"word": "hold, again"}, entry("noted"))
        route = records.routes.get("loans")
        with pytest.raises(Conflict, match="has moved on"):
            move(records, release, entry(name))
        assert records.routes.get("loans") == route
        (refused,) = records.audit.entries(action=f"{name}.refused")
        assert refused.details["release"] == release.id
        assert "has moved on" in refused.details["reason"]
        assert records.audit.entries(action=name) == []


def test_an_ended_release_moves_no_more(records: Records) -> None:
    for name, release, move in each_move(records):
        if release.state == "watched":
            ended = records.releases.settle(release, entry("settled"))
        else:
            ended = records.releases.abort(release, "over", entry("aborted"))
        with pytest.raises(Conflict, match=f"is {ended.state}"):
            move(records, ended, entry(name))
        assert records.releases.get("loans", release.id) == ended


def test_a_release_of_a_use_case_that_was_reset_moves_no_more(served: Records) -> None:
    release = in_step(served, 1)
    counts = served.forget("loans", entry=entry("use_case.reset"))
    assert (counts["releases"], counts["routes"]) == (1, 1)
    with pytest.raises(Conflict, match="nothing was ever released"):
        served.releases.abort(release, "x", entry("aborted"))
    serve(served)
    with pytest.raises(Conflict, match="is not on record any more; it was reset"):
        served.releases.abort(release, "x", entry("aborted"))


def test_a_release_that_the_routing_row_has_left_is_only_ended(records: Records) -> None:
    """As a node of the version before leaves it, which rolls back without knowing of releases."""
    for name, release, move in each_move(records):
        if name not in ("begin", "advance", "suspend", "promote"):
            continue
        taken_back_by_an_older_node(records)
        with pytest.raises(Conflict, match="is version None, not 3; abort the release"):
            move(records, release, entry(name))
        records.releases.abort(release, "left", entry("aborted"))
        route = records.routes.get("loans")
        assert (route.release_id, route.held) == (None, ["sha256:3"])
        assert (route.mode, route.share, route.release_key) == (None, 0, None)


def taken_back_by_an_older_node(records: Records) -> None:
    with records.transaction() as session:
        row = session.get_one(RouteRow, "loans")
        row.challenger, row.step, row.weight, row.held = None, 0, 0.0, ["sha256:3"]
        row.generation, row.rollback_generation = row.generation + 1, row.generation + 1


def test_the_next_request_ends_a_release_that_an_older_node_took_back(served: Records) -> None:
    release = in_step(served, 1)
    taken_back_by_an_older_node(served)
    generation = served.routes.get("loans").generation
    served.models.add(model(5, generation=generation))
    after = requested(served, 5)
    ended = served.releases.get("loans", release.id)
    assert ended is not None
    assert (ended.state, traffic(served)) == ("rolled_back", (None, 0, 0.0))
    assert served.releases.running("loans") == after


def test_a_verdict_ends_a_release_that_an_older_node_took_back(served: Records) -> None:
    release = in_step(served, 1)
    taken_back_by_an_older_node(served)
    ended = served.releases.note(release, {"word": "hold"}, entry("judged"))
    route = served.routes.get("loans")
    assert (ended.state, route.release_id, route.share) == ("rolled_back", None, 0)
    details = served.audit.entries(action="judged")[-1].details
    assert (details["ended"], details["generation"]) == ("rolled_back", route.generation)


def test_a_judge_rolls_back_what_an_older_node_took_back_before(served: Records) -> None:
    release = in_step(served, 1)
    taken_back_by_an_older_node(served)
    ended = served.releases.roll_back(release, "bad", entry("rolled_back"))
    route = served.routes.get("loans")
    assert (ended.state, route.held, route.champion) == ("rolled_back", ["sha256:3"], 2)


@pytest.mark.parametrize("held", [True, False])
def test_a_watched_release_whose_model_serves_no_more_is_settled_as_what_it_was(
    served: Records, held: bool
) -> None:
    release = watched(served)
    with served.transaction() as session:
        row = session.get_one(RouteRow, "loans")
        row.champion, row.held = 2, ["sha256:3"] if held else []
    ended = served.releases.settle(release, entry("settled"))
    assert ended.state == ("rolled_back" if held else "promoted")
