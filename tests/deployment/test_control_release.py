"""What a person says of a release, on real records: what it does, needs and refuses."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.deployment.control_release import status, steer
from include.errors import ConfigError, Conflict
from include.records.records import AuditEntry, Release
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


def request(desk: Desk, version: int, key: str) -> Release:
    model, route = desk.candidate(version, key), desk.records.routes.get(NAME)
    return desk.records.releases.request(
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


def say(desk: Desk, action: str, **more: datetime) -> str:
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
    assert "rolled back: month end" in say(desk, "roll back"), "what is watched can be taken back"
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
    with pytest.raises(Conflict, match="no release is under way to abort; model 2 is champion"):
        say(desk, "abort")


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
