"""A release judged on real records: signs of life, a judge that was away, two at once, a guard."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from include.clock import utc_now
from include.config import settings as environment
from include.config.settings import Settings
from include.deployment.control_release import steer
from include.deployment.decision import Decision
from include.deployment.judge_release import _judge, release_of_partition, step_over, turn
from include.deployment.release_ends import end_event
from include.deployment.release_plan import PlannedStep, ReleasePlan
from include.deployment.release_state import describe_state, state_of
from include.errors import ConfigError, Conflict
from include.models.public_keys import retire, revoke
from include.predictions.window_counts import ERRORS, REQUESTS, Counts
from include.records.records import AuditEntry, Records, Release
from include.records.release_reports import Window
from include.records.releases import Releases
from include.records.schema import ReleaseRow, RouteRow
from include.serving.release_watch import ReleaseWatch
from tests.builders import releases
from tests.builders.serving import NAME, Desk

KEY = "2026-03-02"
PLAN = ReleasePlan(
    "canary",
    [PlannedStep(share, bake=60.0, requests=10, entities=5, deadline=600.0) for share in (0, 500)],
    watch=60.0,
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Have model 1 as champion, and model 2 in the first step of its release."""
    made = Desk(tmp_path)
    monkeypatch.setattr(environment, "settings", lambda: made.settings)
    made.candidate(1)
    made.record_route(champion=1)
    model, route = made.candidate(2, KEY), made.records.routes.get(NAME)
    release = made.records.releases.request(
        NAME,
        partition=KEY,
        model=model,
        opponent=1,
        judged_generation=route.generation,
        plan=PLAN.plain(),
        description=None,
        entry=entry(),
    )
    made.records.releases.begin(release, entry())
    return made


def entry() -> AuditEntry:
    return AuditEntry("test", NAME, "2", "test", {}, utc_now())


def newest(desk: Desk) -> Release:
    return desk.records.releases.of(NAME)[0]


def look(desk: Desk, *, later: float = 0.0) -> dict[str, Any]:
    """Judge once, so many seconds from now."""
    now = desk.records.releases.now() + timedelta(seconds=later)
    state = turn(desk.settings, NAME, newest(desk).id, now)
    assert state is not None
    return state


def actions(desk: Desk) -> list[str]:
    return [row.action for row in desk.records.audit.entries(NAME) if row.actor == "judge"]


def test_a_look_is_a_sign_of_life_and_says_how_far_the_release_is(desk: Desk) -> None:
    state = look(desk)
    beat = desk.records.releases.last_beat(NAME)
    assert beat is not None
    assert (beat.release_id, beat.seconds) == (newest(desk).id, PLAN.beat)
    assert (state["state"], state["step"], state["steps"], state["name"]) == (
        "running",
        0,
        2,
        "shadow",
    )
    assert state["word"] == "hold", "there is no evidence yet"
    assert newest(desk).verdicts[-1]["word"] == "hold"
    look(desk)
    again = desk.records.releases.last_beat(NAME)
    assert again is not None
    assert again.beat == beat.beat + 1
    assert actions(desk) == ["release.judged"], "the same word again is no new audit row"
    table = describe_state(state).splitlines()
    assert "is in step 1 of 2 (shadow)" in table[0]
    assert table[1].strip().startswith("hold: ")


def test_a_judge_that_was_away_begins_the_step_anew_and_the_gap_is_on_record(desk: Desk) -> None:
    look(desk)
    before = newest(desk)
    look(desk, later=PLAN.beat + 30)
    after = newest(desk)
    assert (after.state, after.step, after.suspended) == ("running", 0, False)
    assert after.entered_at > before.entered_at
    assert after.gap_seconds == pytest.approx(PLAN.beat + 30, abs=5)
    assert actions(desk)[-2:] == ["release.suspended", "release.resumed"]
    assert desk.records.routes.get(NAME).mode == "shadow"


@pytest.mark.parametrize("at", ["suspend", "resume"])
def test_a_judge_that_is_killed_while_he_takes_it_up_leaves_the_gap_to_the_next_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    look(desk)
    before, later = newest(desk), PLAN.beat + 30

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Releases, at, killed)
        with pytest.raises(KeyboardInterrupt):
            look(desk, later=later)
    look(desk, later=later + 1)
    after = newest(desk)
    assert (after.state, after.step, after.suspended) == ("running", 0, False)
    assert after.entered_at > before.entered_at, "its bake begins anew"
    assert after.gap_seconds == pytest.approx(later, abs=5)


@pytest.mark.parametrize("at", ["unless_refused", "carry_out", "ask_person"])
def test_who_cannot_judge_gives_no_sign_of_life_and_the_release_ends(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Such as of keys, or a file of the use case, that its user may not read."""
    clock = [0.0]
    node = ReleaseWatch(NAME, clock=lambda: clock[0])
    node.hear(None, 1)
    look(desk)
    before = desk.records.releases.last_beat(NAME)
    node.hear(before, 1)
    assert node.is_heard()

    def fails(*_: object) -> None:
        raise PermissionError("not for this user")

    asks = Decision("hold", "stay", "it waits", asks_about=("both burn",))
    monkeypatch.setattr("include.deployment.judge_release._judge", lambda *_: asks)
    monkeypatch.setattr(f"include.deployment.judge_release.{at}", fails)
    for _ in range(3):
        assert step_over(NAME, KEY, 0) is None
        clock[0] += PLAN.beat / 3
        node.hear(desk.records.releases.last_beat(NAME), 1)
    assert (desk.records.releases.last_beat(NAME), node.is_heard()) == (before, False)
    for later in (PLAN.beat + 30, PLAN.resume - 30):
        with pytest.raises(PermissionError):
            look(desk, later=later)
    taken_up = [action for action in actions(desk) if action == "release.resumed"]
    assert taken_up == [] or at != "unless_refused", "who cannot judge begins no step anew"
    state = look(desk, later=PLAN.resume + 30)
    assert (state["state"], state["reason"][:14]) == ("aborted", "judge away for")


def test_an_ended_release_has_no_sign_of_life_that_would_hide_the_next_ones(desk: Desk) -> None:
    look(desk)
    before = desk.records.releases.last_beat(NAME)
    desk.records.releases.latch(NAME, newest(desk).id, "one", "boot", "it answers NaN")
    assert look(desk)["state"] == "rolled_back"
    assert desk.records.releases.last_beat(NAME) == before


def test_what_has_ended_is_shown_though_a_later_version_wrote_its_plan(desk: Desk) -> None:
    with desk.records.transaction() as session:
        row = session.get_one(ReleaseRow, (NAME, newest(desk).id))
        row.plan = {**row.plan, "kind": "of a later version"}
    with pytest.raises(ConfigError, match="abort the release"):
        state_of(newest(desk), None)
    desk.records.releases.abort(newest(desk), "not readable", entry())
    assert state_of(newest(desk), None)["reason"] == "not readable"


def test_a_judge_that_was_away_goes_on_with_no_release_that_a_common_cause_has_suspended(
    desk: Desk,
) -> None:
    look(desk)
    desk.records.releases.suspend(newest(desk), entry())
    now = desk.records.releases.now() + timedelta(seconds=PLAN.beat + 30)
    counts = Counts()
    counts.clusters[0][REQUESTS], counts.clusters[0][ERRORS] = 400, 400
    sick = [
        Window(NAME, newest(desk).id, 0, "champion", "champion", "n:1", "b", minute, counts.plain())
        for minute in range(int(now.timestamp()) // 60 - 9, int(now.timestamp()) // 60 + 1)
    ]
    desk.records.releases.put_windows(sick)
    state = turn(desk.settings, NAME, newest(desk).id, now)
    assert state is not None
    assert (state["suspended"], state["reason"]) == (True, "suspended: the champion fails too")


def test_a_judge_that_was_away_too_long_ends_the_release_and_holds_nothing(desk: Desk) -> None:
    look(desk)
    state = look(desk, later=PLAN.resume + 30)
    assert state["state"] == "aborted"
    assert newest(desk).reason.startswith("judge away for 36")
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.challenger, route.held) == (1, None, [])


def test_a_release_that_nobody_ever_judged_is_measured_from_its_beginning(desk: Desk) -> None:
    assert look(desk, later=PLAN.resume + 30)["state"] == "aborted"


def test_a_nodes_guard_rolls_the_release_back_for_all(desk: Desk) -> None:
    release = newest(desk)
    desk.records.releases.latch(NAME, release.id, "one", "boot", "errors above its limit")
    state = look(desk)
    assert state["state"] == "rolled_back"
    ended, route = newest(desk), desk.records.routes.get(NAME)
    assert (ended.rolled_back_by_itself, "errors above its limit" in ended.reason) == (True, True)
    assert (route.challenger, route.held) == (None, [release.challenger_digest])
    assert look(desk)["state"] == "rolled_back", "what has ended is only looked at"


def put_errors(desk: Desk) -> None:
    """Have the champion fail most requests of ten minutes, as a node reports it."""
    now, counts = desk.records.releases.now(), Counts()
    for cluster in counts.clusters:
        cluster[REQUESTS], cluster[ERRORS] = 40, 30
    minutes = range(int(now.timestamp()) // 60 - 9, int(now.timestamp()) // 60 + 1)
    step = newest(desk).step
    desk.records.releases.put_windows(
        [
            Window(NAME, newest(desk).id, step, "champion", "champion", "n:1", "b", minute,
                   counts.plain())
            for minute in minutes
        ]
    )  # fmt: skip


def test_a_watched_model_that_is_bad_is_taken_back_once_and_a_person_is_asked(desk: Desk) -> None:
    desk.records.releases.promote(newest(desk), entry(), None)
    assert "it ends at the latest at" in describe_state(look(desk))
    put_errors(desk)
    state = look(desk)
    assert (state["state"], state["asks"]) == ("rolled_back", True)
    route = desk.records.routes.get(NAME)
    assert (route.champion, len(route.held)) == (1, 1)
    look(desk)
    [asked] = desk.records.audit.entries(NAME, action="release.asks_a_person")
    assert (asked.actor, "it burns at" in asked.details["reason"]) == ("judge", True)


def test_a_watch_is_not_over_while_the_next_release_is_under_way(desk: Desk) -> None:
    desk.records.releases.promote(newest(desk), entry(), None)
    watched = newest(desk)
    releases.request(desk.records, 3, "2026-03-03", use_case=NAME)
    later = desk.records.releases.now() + timedelta(seconds=PLAN.watch + 1)

    def look_at_it() -> dict[str, Any]:
        state = turn(desk.settings, NAME, watched.id, later)
        assert state is not None
        return state

    state = look_at_it()
    assert (state["state"], state["word"], state["ends_at"]) == ("watched", "hold", None)
    assert "is under way" in state["reason"]
    running = desk.records.releases.running(NAME)
    assert running is not None
    running = desk.records.releases.begin(running, entry())
    assert look_at_it()["state"] == "watched"
    desk.records.releases.abort(running, "a wish", entry())
    assert look_at_it()["state"] == "promoted"
    ended = desk.records.releases.get(NAME, watched.id)
    assert ended is not None
    assert f"release {running.id} was under way" in end_event(desk.records, ended)["reason"]
    [settled] = desk.records.audit.entries(NAME, action="release.settled")
    assert settled.details["verdict"]["word"] == "hold"


def test_of_a_bad_champion_that_nobody_can_be_taken_back_to_a_person_is_told(desk: Desk) -> None:
    desk.records.releases.promote(newest(desk), entry(), None)
    with desk.records.transaction() as session:
        session.get_one(RouteRow, NAME).previous = None
    put_errors(desk)
    for _ in range(3):
        state = look(desk)
        assert (state["state"], state["word"], state["asks"]) == ("watched", "fail", True)
        assert "there is no earlier champion to go back to" in state["reason"]
    assert newest(desk).verdicts[-1]["reason"] == state["reason"]
    [asked] = desk.records.audit.entries(NAME, action="release.asks_a_person")
    assert "refused roll_back" in asked.details["about"]
    assert len(desk.records.audit.entries(NAME, action="release.rolled_back.refused")) == 1
    assert look(desk, later=PLAN.watch + 1)["state"] == "watched", "it is not said to have stood it"


def test_what_the_records_refuse_is_told_and_ends_at_the_deadline(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes(desk, monkeypatch)
    monkeypatch.setattr("include.deployment.judge_release._silence", lambda *_: 0.0)
    with desk.records.transaction() as session:
        session.get_one(RouteRow, NAME).watermark = "2026-03-09"
    for _ in range(2):
        state = look(desk)
        assert (state["state"], state["word"], state["asks"]) == ("running", "hold", True)
        assert state["reason"].startswith("all is well; the records refuse it: ")
    [asked] = desk.records.audit.entries(NAME, action="release.asks_a_person")
    assert asked.details["about"] == ["refused promote"]
    assert len(desk.records.audit.entries(NAME, action="release.promoted.refused")) == 1
    state = look(desk, later=301)
    assert (state["state"], state["asks"]) == ("aborted", True)
    assert desk.records.routes.get(NAME).held == []


def test_who_was_slower_asks_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(records: Records, release: Release, *_: object) -> Decision:
        records.releases.pause(release, entry())  # another hand, between the look and its move
        return Decision("pass", "promote", "all is well")

    monkeypatch.setattr("include.deployment.judge_release._judge", judge)
    assert look(desk)["state"] == "running"
    assert desk.records.audit.entries(NAME, action="release.asks_a_person") == []


def test_a_person_is_asked_once_a_step_for_each_kind_of_reason(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    above, burn, suspended = "champion above errors", "both burn", "suspended"
    looks = [((above,), "2.1 %"), ((above,), "2.2 %"), ((burn, above), "200"), ((burn,), "300")]
    looks += [((burn, suspended), "deadline"), ((above, suspended), "still")]
    for about, reason in looks:
        found = Decision("hold", "stay", reason, asks_about=about)
        monkeypatch.setattr("include.deployment.judge_release._judge", lambda *_, f=found: f)
        look(desk)
    rows = desk.records.audit.entries(NAME, action="release.asks_a_person")
    told = [(row.details["about"], row.details["reason"]) for row in rows]
    assert told == [([above], "2.1 %"), ([burn], "200"), ([suspended], "deadline")]
    desk.records.releases.suspend(newest(desk), entry())
    desk.records.releases.resume(newest(desk), 0.0, entry())
    look(desk)
    rows = desk.records.audit.entries(NAME, action="release.asks_a_person")
    assert len(rows) == 4, "its step began anew"


def test_a_guard_that_is_told_after_the_promotion_takes_no_champion_back(desk: Desk) -> None:
    """Its node was away when it latched; what it saw was of a step that is over."""
    desk.records.releases.promote(newest(desk), entry(), None)
    desk.records.releases.latch(NAME, newest(desk).id, "one", "boot", "it answers NaN")
    for _ in range(2):
        state = look(desk)
        assert (state["state"], state["word"], state["asks"]) == ("watched", "pass", True)
    assert desk.records.routes.get(NAME).champion == 2
    [asked] = desk.records.audit.entries(NAME, action="release.asks_a_person")
    assert asked.details["reason"] == "watched; late, the guard of one in its steps: it answers NaN"
    assert look(desk, later=PLAN.watch + 1)["state"] == "promoted"


@pytest.mark.parametrize("action", ["advance", "promote"])
def test_no_release_goes_on_past_a_guard_that_latched_since_it_was_judged(
    desk: Desk, action: str
) -> None:
    release = newest(desk)
    desk.records.releases.latch(NAME, release.id, "one", "boot", "it answers NaN")
    go_on: Any = {
        "advance": lambda: desk.records.releases.advance(release, {"word": "pass"}, entry()),
        "promote": lambda: desk.records.releases.promote(release, entry(), None),
    }[action]
    with pytest.raises(Conflict, match="the guard of one has sent its traffic home: it answers"):
        go_on()
    assert newest(desk) == release
    assert look(desk)["state"] == "rolled_back"


def revoke_key_of(desk: Desk, version: int) -> None:
    model, folder = desk.records.models.get(NAME, version), desk.settings.signing_keys_folder
    assert model is not None
    assert model.signing_key is not None
    revoke(folder, model.signing_key, at=utc_now(), actor="anna", reason="the laptop is lost")


@pytest.mark.parametrize("step", [0, 1])
def test_a_release_whose_key_is_revoked_ends_without_a_hold_before_any_node_says_so(
    desk: Desk, step: int
) -> None:
    for _ in range(step):
        desk.records.releases.advance(newest(desk), {"word": "pass"}, entry())
    look(desk)
    revoke_key_of(desk, 2)
    state = look(desk)
    assert (state["state"], "is revoked" in state["reason"]) == ("aborted", True)
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.challenger, route.held) == (1, None, [])
    [asked] = desk.records.audit.entries(NAME, action="release.asks_a_person")
    assert "package_model" in asked.details["reason"], "the remedy is said"


def passes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the evidence of a step be enough for a promotion."""
    ends = desk.records.releases.now() + timedelta(minutes=5)
    found = Decision("pass", "promote", "all is well", ends_at=ends)
    monkeypatch.setattr("include.deployment.judge_release._judge", lambda *_: found)


def test_at_its_promotion_a_model_is_verified_once_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its row says, or that its keys cannot be read, is seen by nobody else in time."""
    passes(desk, monkeypatch)
    keys = desk.settings.signing_keys_folder
    (keys / "revoked").rename(keys / "away")
    state = look(desk)
    assert (state["state"], state["word"], state["asks"]) == ("running", "hold", True)
    assert "cannot be told" in state["reason"]
    (keys / "away").rename(keys / "revoked")
    desk.records.models.update(NAME, 2, pins="sha256:changed", artefact_digest="sha256:changed")
    assert look(desk)["state"] == "aborted"
    assert desk.records.routes.get(NAME).champion == 1


def test_without_its_keys_a_release_is_aborted_at_its_deadline(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(desk)
    passes(desk, monkeypatch)
    keys = desk.settings.signing_keys_folder
    (keys / "revoked").rename(keys / "away")
    monkeypatch.setattr("include.deployment.judge_release._silence", lambda *_: 0.0)
    assert look(desk, later=301)["state"] == "aborted"


def test_a_model_that_passes_is_promoted_though_its_key_has_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes(desk, monkeypatch)
    model = desk.records.models.get(NAME, 2)
    assert model is not None
    assert retire(desk.settings.signing_keys_folder, str(model.signing_key), utc_now())
    assert look(desk)["state"] == "watched"
    assert desk.records.routes.get(NAME).champion == 2


def test_nobody_promotes_a_model_whose_key_is_revoked(desk: Desk) -> None:
    revoke_key_of(desk, 2)
    with pytest.raises(Conflict, match="model 2 cannot be promoted, no node would load it"):
        steer(desk.settings, NAME, "promote", reason="now", actor="me", at=utc_now())
    assert desk.records.routes.get(NAME).champion == 1


def test_evidence_that_cannot_be_read_is_a_hold_until_the_deadline(desk: Desk) -> None:
    wrong = Window(NAME, newest(desk).id, 0, "shadow", "challenger", "one", "boot", 1, {"x": 1})
    desk.records.releases.put_windows([wrong])
    state = look(desk)
    assert (state["state"], state["word"], state["asks"]) == ("running", "hold", True)
    assert "what nodes have counted cannot be read" in state["reason"]
    now = newest(desk).entered_at + timedelta(seconds=PLAN.steps[0].deadline)
    late = _judge(desk.records, newest(desk), PLAN, 0.0, now)
    assert (late.word, late.action) == ("hold", "abort")


def test_many_judges_at_once_do_what_one_does(desk: Desk) -> None:
    desk.records.releases.latch(NAME, newest(desk).id, "one", "boot", "it burns")
    states: list[str] = []

    def judge() -> None:
        states.append(look(desk)["state"])

    judges = [threading.Thread(target=judge) for _ in range(6)]
    for each in judges:
        each.start()
    for each in judges:
        each.join()
    assert set(states) == {"rolled_back"}
    done = [action for action in actions(desk) if action == "release.rolled_back"]
    assert done == ["release.rolled_back"]
    assert desk.records.audit.verify() is None


def test_the_task_of_a_step_waits_until_its_step_is_over(desk: Desk) -> None:
    assert step_over(NAME, KEY, 0) is None
    assert step_over(NAME, KEY, None) is None
    desk.records.releases.advance(newest(desk), {"word": "pass", "reason": ""}, entry())
    over = step_over(NAME, KEY, 0)
    assert over is not None
    assert (over["state"], over["step"]) == ("running", 1)
    assert step_over(NAME, KEY, 1) is None, "the last task goes on to the end of the steps"
    assert step_over(NAME, KEY, 0, last=True) is None, "also of a plan that has more than the DAG"
    desk.records.releases.abort(newest(desk), "a wish", entry())
    ended = step_over(NAME, KEY, 1)
    assert ended is not None
    assert (ended["state"], ended["reason"]) == ("aborted", "a wish")
    nobody = step_over(NAME, "2026-03-01", 0)
    assert nobody == {"state": "none", "reason": "no release of 2026-03-01 is on record"}


def test_a_release_is_found_however_many_were_superseded_since(desk: Desk) -> None:
    for number in range(22):
        releases.request(
            desk.records, 3 + number, f"2026-03-{number + 3:02}", use_case=NAME, waits=True
        )
    assert newest(desk).challenger != 2
    found = release_of_partition(desk.records, NAME, KEY)
    assert found is not None
    assert (found.challenger, found.state) == (2, "running")


def test_the_watch_waits_until_it_is_settled(desk: Desk) -> None:
    desk.records.releases.promote(newest(desk), entry(), None)
    promoted = step_over(NAME, KEY, 1)
    assert promoted is not None
    assert promoted["state"] == "watched"
    assert step_over(NAME, KEY, None) is None
    desk.records.releases.settle(newest(desk), entry())
    settled = step_over(NAME, KEY, None)
    assert settled is not None
    assert settled["state"] == "promoted"


def test_records_that_are_away_are_asked_again(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Settings(
        home=tmp_path / "other",
        records_url=SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none"),
        database_patience=0.1,
    )
    monkeypatch.setattr(environment, "settings", lambda: broken)
    assert step_over(NAME, KEY, 0) is None
