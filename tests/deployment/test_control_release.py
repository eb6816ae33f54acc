"""What a person says of a release, on real records: what it does, needs and refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.deployment.control_release import status, steer
from include.errors import ConfigError, Conflict
from include.records.records import AuditEntry, Release
from include.records.releases import Releases
from tests.builders.serving import NAME, Desk

AT = datetime(2026, 3, 10, tzinfo=UTC)
PLAN = {
    "kind": "canary",
    "watch": 60.0,
    "steps": [
        {"share": share, "bake": 60.0, "requests": 10, "entities": 5, "deadline": 600.0}
        for share in (0, 500)
    ],
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Have model 1 as champion, and model 2 in the first step of its release."""
    made = Desk(tmp_path)
    made.candidate(1)
    made.record_route(champion=1)
    request(made, 2, "2026-03-02")
    releases = made.records.releases
    releases.begin(under_way(made), entry())
    return made


def request(desk: Desk, version: int, key: str, *, waits: bool = False) -> Release:
    known = desk.records.models.get(NAME, version)
    model, route = known or desk.candidate(version, key), desk.records.routes.get(NAME)
    start = desk.records.releases.wait if waits else desk.records.releases.request
    return start(
        NAME,
        partition=key,
        model=model,
        opponent=route.champion,
        judged_generation=route.generation,
        plan=PLAN,
        description=None,
        entry=entry(),
    )


def entry() -> AuditEntry:
    return AuditEntry("test", NAME, "2", "test", {}, AT)


def under_way(desk: Desk) -> Release:
    release = desk.records.releases.running(NAME)
    assert release is not None
    return release


def say(desk: Desk, action: str, **more: Any) -> str:
    return steer(desk.settings, NAME, action, reason="month end", actor="anna", at=AT, **more)


def test_each_word_moves_the_release_and_is_on_record_with_who_and_why(desk: Desk) -> None:
    assert "step 1 of 2 (shadow, paused)" in say(desk, "pause")
    assert under_way(desk).paused
    say(desk, "unpause")
    assert not under_way(desk).paused
    assert "step 2 of 2 (5 %)" in say(desk, "advance")
    assert desk.records.routes.get(NAME).share == 500
    assert "is watched" in say(desk, "advance"), "after the last step it is promoted"
    assert desk.records.routes.get(NAME).champion == 2
    rows = [row for row in desk.records.audit.entries(NAME) if row.actor == "anna"]
    assert [row.action for row in rows] == [
        f"release.{name}" for name in ("paused", "unpaused", "advanced", "promoted")
    ]
    assert {row.details["reason"] for row in rows} == {"month end"}
    assert "rolled back: month end" in say(desk, "roll back", version=2), "a watched one, named"
    assert desk.records.routes.get(NAME).champion == 1


def test_abort_holds_nothing_and_roll_back_holds_the_digest(desk: Desk) -> None:
    aborted = under_way(desk)
    assert "is aborted: month end" in say(desk, "abort")
    assert desk.records.routes.get(NAME).held == []
    again = request(desk, 3, "2026-03-03")
    desk.records.releases.begin(again, entry())
    say(desk, "roll back")
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.challenger, route.share) == (1, None, 0)
    assert route.held == [again.challenger_digest]
    assert aborted.challenger_digest not in route.held


def test_a_suspended_release_goes_on_by_unpause(desk: Desk) -> None:
    desk.records.releases.suspend(under_way(desk), entry())
    say(desk, "unpause")
    assert not under_way(desk).suspended
    assert desk.records.routes.get(NAME).mode == "shadow"


def test_the_judge_that_notes_meanwhile_is_in_nobodys_way(desk: Desk) -> None:
    stop = threading.Event()

    def note() -> None:
        while not stop.wait(0.02):
            try:
                verdict = {"word": "hold", "reason": "it bakes", "evidence": {}}
                desk.records.releases.note(under_way(desk), verdict, entry())
            except Conflict:
                continue

    judge = threading.Thread(target=note)
    judge.start()
    try:
        for action in ("pause", "unpause") * 5:
            say(desk, action)
    finally:
        stop.set()
        judge.join()
    actions = [row.action for row in desk.records.audit.entries(NAME) if row.actor == "anna"]
    assert [one for one in actions if "refused" not in one] == [
        "release.paused",
        "release.unpaused",
    ] * 5


def test_what_cannot_be_done_says_why(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="needs a reason"):
        steer(desk.settings, NAME, "abort", reason=" ", actor="anna", at=AT)
    with pytest.raises(ConfigError, match="'stop' is no action; say one of pause, unpause"):
        say(desk, "stop")
    with pytest.raises(Conflict, match="is not paused"):
        say(desk, "unpause")
    with pytest.raises(ConfigError, match="a freeze needs its end"):
        say(desk, "freeze")
    with pytest.raises(ConfigError, match="is no end of a freeze"):
        say(desk, "freeze", until=AT - timedelta(days=1))
    say(desk, "promote")
    with pytest.raises(Conflict, match="no release is in its steps to abort; model 2 is champion"):
        say(desk, "abort")


@pytest.fixture
def watching(desk: Desk) -> Desk:
    """Have model 2 as champion, and watched, and model 3 in the first step of its release."""
    say(desk, "promote")
    desk.records.releases.begin(request(desk, 3, "2026-03-03"), entry())
    return desk


def queue(desk: Desk, version: int, key: str) -> Release:
    return request(desk, version, key, waits=True)


def test_a_release_that_ended_before_its_turn_leaves_the_watched_champion_alone(
    watching: Desk,
) -> None:
    """The judge rolls model 3 back between a person's form and its task."""
    watching.records.releases.roll_back(under_way(watching), "it burns", entry())
    before = watching.records.routes.get(NAME)
    with pytest.raises(Conflict, match="in its steps to roll back; model 2 is champion"):
        say(watching, "roll back")
    with pytest.raises(Conflict, match=r"no release of model 3 to roll back; .*: it burns"):
        say(watching, "roll back", version=3)
    assert watching.records.routes.get(NAME) == before
    say(watching, "roll back", version=2)
    assert watching.records.routes.get(NAME).champion == 1


@pytest.mark.parametrize("version", [None, 3])
def test_a_release_that_is_rolled_back_in_the_same_moment_is_the_only_one(
    watching: Desk, monkeypatch: pytest.MonkeyPatch, version: int | None
) -> None:
    meanwhile(
        monkeypatch,
        "roll_back",
        lambda release: watching.records.releases.roll_back(release, "it burns", entry()),
    )
    with pytest.raises(Conflict, match=r"too late to roll back: .* of model 3 .*: it burns"):
        say(watching, "roll back", version=version)
    route = watching.records.routes.get(NAME)
    assert (route.champion, len(route.held)) == (2, 1)
    watched = watching.records.releases.watched(NAME)
    assert watched is not None
    assert watched.challenger == 2


def test_a_bad_model_that_is_promoted_in_the_same_moment_is_rolled_back_all_the_same(
    watching: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(
        monkeypatch,
        "roll_back",
        lambda release: watching.records.releases.promote(release, entry(), None),
    )
    assert "of model 3 is rolled back: month end" in say(watching, "roll back")
    assert watching.records.routes.get(NAME).champion == 2


def test_an_abort_that_comes_too_late_leaves_the_candidate_that_waits(
    watching: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = queue(watching, 4, "2026-03-04")
    meanwhile(
        monkeypatch,
        "abort",
        lambda release: watching.records.releases.promote(release, entry(), None),
    )
    with pytest.raises(Conflict, match=r"too late to abort: release .* of model 3 is watched"):
        say(watching, "abort")
    with pytest.raises(Conflict, match="model 4 waits; if model 4 is meant, name its version"):
        say(watching, "abort")
    assert watching.records.releases.waiting(NAME) == waiting
    assert "of model 4 is aborted: month end" in say(watching, "abort", version=4)
    assert watching.records.releases.waiting(NAME) is None


def test_what_came_in_its_place_is_not_what_was_looked_at_in_its_steps(watching: Desk) -> None:
    queue(watching, 4, "2026-03-04")
    watching.records.releases.abort(under_way(watching), "a wish", entry())
    request(watching, 4, "2026-03-04")
    for action in ("abort", "roll back"):
        with pytest.raises(Conflict, match=r"model 4 is tried by the nodes; .* model 4 is meant"):
            say(watching, action)
    with pytest.raises(Conflict, match=r"no release of model 3 to pause; .* is aborted: a wish"):
        say(watching, "pause", version=3)
    say(watching, "pause", version=4)
    assert "of model 4 is aborted" in say(watching, "abort", version=4)


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, move: str, another: Callable[[Release], Release]
) -> None:
    """Have another hand be faster than the next move of a release."""
    original = getattr(Releases, move)

    def late(self: Releases, release: Release, *arguments: Any) -> Release:
        monkeypatch.undo()
        another(release)
        moved: Release = original(self, release, *arguments)
        return moved

    monkeypatch.setattr(Releases, move, late)


def test_what_nodes_have_not_tried_is_not_promoted(desk: Desk) -> None:
    say(desk, "abort")
    request(desk, 3, "2026-03-03")
    with pytest.raises(Conflict, match="was not tried yet"):
        say(desk, "promote")


def test_the_status_shows_what_is_under_way_and_how_the_last_ones_ended(desk: Desk) -> None:
    found = status(desk.settings, NAME)
    assert (found["champion"], found["frozen"], found["waiting"]) == (1, None, None)
    assert (found["under_way"]["name"], found["under_way"]["steps"]) == ("shadow", 2)
    desk.records.releases.latch(NAME, under_way(desk).id, "one", "boot", "it burns")
    assert status(desk.settings, NAME)["guards"] == [{"node": "one", "reason": "it burns"}]
    say(desk, "abort")
    found = status(desk.settings, NAME)
    assert (found["under_way"], found["guards"]) == (None, [])
    assert [one["state"] for one in found["last"]] == ["aborted"]


def go_on(desk: Desk) -> None:
    verdict = {"word": "pass", "reason": "bake and minimum are reached", "evidence": {}}
    desk.records.releases.advance(under_way(desk), verdict, entry())


def test_a_step_that_the_judge_went_on_to_in_the_same_moment_is_not_passed_unseen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, "advance", lambda release: go_on(desk))
    with pytest.raises(Conflict, match=r"too late to advance: .* step 2 of 2 .*nothing was done"):
        say(desk, "advance")
    assert (under_way(desk).step, desk.records.routes.get(NAME).champion) == (1, 1)


def test_it_goes_on_from_the_step_that_was_looked_at_and_from_no_other(desk: Desk) -> None:
    go_on(desk)  # between a person's question and the answer
    with pytest.raises(Conflict, match=r"too late to advance: .* step 2 of 2 .*nothing was done"):
        say(desk, "advance", step=0)
    assert "is watched" in say(desk, "advance", step=1)


def test_what_is_paused_and_suspended_goes_on_at_one_word(desk: Desk) -> None:
    say(desk, "pause")
    desk.records.releases.suspend(under_way(desk), entry())
    say(desk, "unpause")
    assert (under_way(desk).paused, under_way(desk).suspended) == (False, False)
    say(desk, "pause")
    desk.records.releases.suspend(under_way(desk), entry())
    desk.records.releases.resume(under_way(desk), 1.0, entry())
    assert under_way(desk).paused, "whoever takes it up again lets no pause go"
