"""What starts, what waits, and what a freeze holds back, on SQLite and PostgreSQL."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from include.errors import Conflict
from include.records.records import Records, Release
from tests.records.builders import lost_answer, model
from tests.records.released import asked, entry, in_step, requested, serve


@pytest.fixture
def served(records: Records) -> Records:
    """Records in which model 2 serves and model 1 did; 3 and 4 are trained."""
    serve(records)
    return records


def queued(records: Records, version: int, **changes: object) -> Release:
    """Queue a version behind the release under way."""
    return records.releases.wait(
        "loans", **asked(records, version, **changes), entry=entry("queued")
    )


def test_a_request_whose_answer_was_lost_happens_once(served: Records) -> None:
    with lost_answer() as lost:
        release = requested(served)
    assert (lost, served.releases.of("loans")) == (["lost"], [release])
    assert len(served.audit.entries(action="requested")) == 1


def test_a_request_that_is_named_is_found_again_however_far_it_came(served: Records) -> None:
    named = entry("requested", once="deploy of 2026-03-03")
    first = requested(served, by=named)
    moved = served.releases.begin(first, entry("begun"))
    assert requested(served, by=named) == moved
    ended = served.releases.abort(moved, "x", entry("aborted"))
    assert requested(served, by=named) == ended
    served.forget("loans", entry=entry("use_case.reset"))
    serve(served)
    with pytest.raises(Conflict, match=f"release {first.id} was reset meanwhile"):
        requested(served, by=named)


def test_one_release_of_a_use_case_is_under_way(served: Records) -> None:
    release = in_step(served, 1)
    with pytest.raises(Conflict, match=f"release {release.id} of version 3 is under way; this one"):
        requested(served, 4)
    assert len(served.audit.entries(action="requested.refused")) == 1
    assert requested(served) == release, "the same model's is that release"
    with pytest.raises(Conflict, match="under way; wait for its end, or abort it"):
        served.routes.change("loans", set={"challenger": 4}, entry=entry())
    route = served.routes.change("loans", set={"description": {"a": 1}}, entry=entry())
    assert (route.description, route.share) == ({"a": 1}, 500)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"opponent": 1}, "champion is 2, not 1; judge the candidate again"),
        ({"partition": "2026-03-01"}, "older than 2026-03-02, which is live"),
    ],
)
def test_what_moved_on_is_named(served: Records, changes: dict[str, object], reason: str) -> None:
    before = served.routes.get("loans")
    with pytest.raises(Conflict, match=reason):
        requested(served, **changes)
    assert (served.routes.get("loans"), served.releases.of("loans")) == (before, [])
    (refused,) = served.audit.entries(action="requested.refused")
    assert reason in refused.details["reason"]


def test_only_a_model_on_record_starts(served: Records) -> None:
    found = served.models.get("loans", 3)
    assert found is not None
    for changed, reason in (
        ({"version": 9}, "no model version 9 on record"),
        ({"model_digest": "sha256:x"}, "is sha256:3, not sha256:x; judge it again"),
    ):
        with pytest.raises(Conflict, match=reason):
            requested(served, model=dataclasses.replace(found, **changed))


def test_the_digest_of_the_package_is_that_of_the_records(served: Records) -> None:
    served.models.update("loans", 3, bento_digest="sha256:b3")
    stale = dataclasses.replace(asked(served)["model"], bento_digest="sha256:older")
    assert requested(served, model=stale).bento_digest == "sha256:b3"


def test_the_newest_candidate_waits_and_older_ones_are_superseded(served: Records) -> None:
    in_step(served, 1)
    served.models.add(model(5, generation=2))
    first = queued(served, 4)
    assert (first.state, served.releases.waiting("loans")) == ("waiting", first)
    assert queued(served, 4) == first
    second = queued(served, 5)
    superseded = served.releases.get("loans", first.id)
    assert superseded is not None
    assert (superseded.state, superseded.ended_at is not None) == ("superseded", True)
    assert superseded.reason == "version 5 of 2026-03-05 is newer"
    assert served.releases.waiting("loans") == second
    with pytest.raises(Conflict, match="version 5 of 2026-03-05 waits, which is newer than"):
        queued(served, 4)
    route = served.routes.get("loans")
    assert (route.challenger, route.share) == (3, 500), "the one under way goes on"
    assert queued(served, 3) == served.releases.running("loans"), "which waits for nothing"


def test_nothing_waits_for_what_is_over(served: Records) -> None:
    """Whoever saw a release under way, or a freeze, and comes to queue behind it after its end."""
    running = in_step(served, 0)
    waiting = queued(served, 4)
    served.releases.abort(running, "x", entry("aborted"))
    with pytest.raises(Conflict, match="no release is under way any more that version 4 could"):
        queued(served, 4)
    until = served.releases.now() + timedelta(hours=1)
    served.releases.freeze("loans", until, entry("frozen"))
    assert queued(served, 4) == waiting
    served.releases.thaw("loans", entry("thawed"))
    with pytest.raises(Conflict, match="request it again, and it starts"):
        queued(served, 3)
    assert requested(served, 4).state == "trying"


def test_what_is_paused_while_it_is_tried_is_neither_begun_nor_promoted(served: Records) -> None:
    paused = served.releases.pause(requested(served), entry("paused"))
    route = served.routes.get("loans")
    for move in (
        lambda: served.releases.begin(paused, entry("begun")),
        lambda: served.releases.promote(paused, entry("promoted"), None),
    ):
        with pytest.raises(Conflict, match="is paused; `evergreen release unpause loans` lets it"):
            move()
    assert served.routes.get("loans") == route
    release = served.releases.unpause(paused, entry("unpaused"))
    assert release.entered_at > paused.entered_at
    release = served.releases.pause(served.releases.begin(release, entry("begun")), entry("paused"))
    assert served.releases.promote(release, entry("promoted"), None).state == "watched"


def test_a_waiting_release_goes_on_as_the_one_that_is_requested(served: Records) -> None:
    running = in_step(served, 2)
    waiting = queued(served, 4)
    running = served.releases.promote(running, entry("promoted"), None)
    generation = served.routes.get("loans").generation
    with pytest.raises(Conflict, match="champion is 3, not 2; judge the candidate again"):
        requested(served, 4, opponent=2)
    release = requested(served, 4)
    assert (release.id, release.state) == (waiting.id, "trying")
    assert (release.champion, release.opponent_generation) == (3, generation)
    assert release.started_at > waiting.started_at
    assert served.releases.waiting("loans") is None
    assert served.releases.watched("loans") == running
    assert served.routes.get("loans").release_id == release.id


def test_a_request_supersedes_an_older_one_that_waits_and_leaves_a_newer_one(
    served: Records,
) -> None:
    running = in_step(served, 0)
    served.models.add(model(5, generation=2))
    older = queued(served, 4)
    served.releases.abort(running, "x", entry("aborted"))
    running = requested(served, 5)
    found = served.releases.get("loans", older.id)
    assert found is not None
    assert found.state == "superseded"
    served.models.add(model(6, generation=2))
    newer = queued(served, 6)
    served.releases.abort(running, "x", entry("aborted"))
    requested(served, 5)
    assert served.releases.waiting("loans") == newer


def test_a_waiting_release_is_aborted_without_a_change_of_the_routing_row(served: Records) -> None:
    in_step(served, 1)
    waiting = queued(served, 4)
    before = served.routes.get("loans")
    ended = served.releases.abort(waiting, "nobody wants it", entry("aborted"))
    assert (ended.state, served.routes.get("loans")) == ("aborted", before)
    assert served.releases.running("loans") is not None
    with pytest.raises(Conflict, match="is aborted"):
        served.releases.begin(ended, entry("begun"))


def test_a_candidate_that_waits_gets_no_traffic_by_itself(served: Records) -> None:
    in_step(served, 0)
    waiting = queued(served, 4)
    for move in (
        lambda: served.releases.begin(waiting, entry("begun")),
        lambda: served.releases.promote(waiting, entry("promoted"), None),
        lambda: served.releases.roll_back(waiting, "x", entry("rolled_back")),
    ):
        with pytest.raises(Conflict, match="is waiting, not"):
            move()


def test_a_frozen_use_case_starts_no_release_and_rolls_back(served: Records) -> None:
    release = in_step(served, 1)
    until = served.releases.now() + timedelta(hours=1)
    with lost_answer() as lost:
        freeze = served.releases.freeze(
            "loans", until, entry("frozen", details={"reason": "month end"})
        )
    assert (lost, freeze.until, freeze.actor, freeze.reason) == (
        ["lost"],
        until,
        "me",
        "month end",
    )
    assert served.releases.frozen("loans") == freeze
    release = served.releases.advance(release, {"word": "pass"}, entry("advanced"))
    assert requested(served, 3) == release, "it has started before"
    served.releases.roll_back(release, "bad", entry("rolled_back"))
    generation = served.routes.get("loans").generation
    served.models.add(model(5, generation=generation))
    assert queued(served, 5).state == "waiting"
    with pytest.raises(Conflict, match=r"no release starts until .* UTC, says me: month end"):
        requested(served, 5)
    route = served.routes.rollback("loans", entry=entry("rollback"))
    assert route.champion == 1
    (frozen,) = served.audit.entries(action="frozen")
    assert frozen.details == {"reason": "month end", "until": until.isoformat()}


def test_a_freeze_ends_by_itself_or_by_a_person(served: Records) -> None:
    assert served.releases.frozen("loans") is None
    assert not served.releases.thaw("loans", entry("thawed"))
    past = served.releases.now() - timedelta(seconds=1)
    served.releases.freeze("loans", past, entry("frozen"))
    assert served.releases.frozen("loans") is None
    release = requested(served)
    served.releases.abort(release, "x", entry("aborted"))
    later = served.releases.now() + timedelta(days=1)
    for day in (1, 2):
        served.releases.freeze("loans", later + timedelta(days=day), entry("frozen"))
    with lost_answer() as lost:
        assert served.releases.thaw("loans", entry("thawed"))
    assert (lost, served.releases.frozen("loans")) == (["lost"], None)
    (thawed,) = served.audit.entries(action="thawed")
    assert thawed.details["until"] == (later + timedelta(days=2)).isoformat()
    assert requested(served).state == "trying"


def test_no_release_starts_beside_a_freeze_that_was_there_first(served: Records) -> None:
    until = served.releases.now() + timedelta(hours=1)

    def ask(number: int) -> str:
        if number == 2:
            served.releases.freeze("loans", until, entry("frozen"))
            return "frozen"
        try:
            requested(served, 3)
        except Conflict:
            return "refused"
        return "started"

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    started = served.audit.entries(action="requested")
    frozen = served.audit.entries(action="frozen")[0]
    assert all(one.sequence < frozen.sequence for one in started), answers
    if (running := served.releases.running("loans")) is not None:
        served.releases.abort(running, "x", entry("aborted"))
    with pytest.raises(Conflict, match="no release starts until"):
        requested(served, 4)
