"""The stage of a release in steps, on real records: its plan, the queue, a freeze, a replay."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.clock import utc_now
from include.deployment import deploy_model
from include.deployment.control_release import steer
from include.deployment.replay import judge_replay
from include.deployment.rollout import node_readiness
from include.deployment.steps import Decision
from include.deployment.traffic import Traffic, count_traffic
from include.errors import ArtefactError, Conflict
from include.models.public_keys import revoke
from include.pipeline.stage import Outcome
from include.predictions.entity_hash import entity_hasher
from include.records.records import AuditEntry, Release, RoleReport
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk, until

SECOND, THIRD, FOURTH = "2026-03-02", "2026-03-03", "2026-03-04"
STEPS = "{thin: hold, steps: [{share: 0}, {share: 5}]}"


class Following:
    """A node that is only its reports: it has tried, and serves, whatever the routing row names."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._stop = desk, threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stop.wait(0.05):
            route = self._desk.records.routes.get(NAME)
            roles = [
                RoleReport(role, version, "", state)
                for role, version, state in (
                    ("champion", route.champion, "serving"),
                    ("challenger", route.challenger, "ready"),
                )
                if version is not None
            ]
            self._desk.records.nodes.report(
                NAME, "one", "boot", generation=route.generation, roles=roles
            )

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def serving(home: Path, release: str = STEPS) -> Iterator[Desk]:
    """Have an installation with a first model released, and a node."""
    desk = Desk(home, release=release)
    node = Following(desk)
    try:
        desk.candidate(1)
        assert desk.deploy().state == "done"
        yield desk
    finally:
        node.stop()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as made:
        yield made


def under_way(desk: Desk) -> Release:
    release = desk.records.releases.running(NAME)
    assert release is not None
    return release


def test_the_first_model_is_promoted_once_tried_and_its_audit_row_says_why(desk: Desk) -> None:
    [row] = desk.records.audit.entries(NAME, action="release.promoted")
    assert row.details["how"] == "nobody serves: promoted as soon as tried"
    watched = desk.records.releases.watched(NAME)
    assert watched is not None
    assert (watched.challenger, watched.plan["kind"]) == (1, "first")


def test_a_release_in_its_steps_is_waiting_and_is_not_begun_twice(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    outcome = desk.deploy(SECOND)
    assert outcome.state == "waiting"
    assert "step 1 of 2 (shadow)" in outcome.reason
    before = under_way(desk)
    assert (before.state, before.step) == ("running", 0)
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.challenger, route.mode, route.share) == (1, 2, "shadow", 0)
    assert desk.deploy(SECOND).state == "waiting"
    assert (under_way(desk).id, desk.records.routes.get(NAME)) == (before.id, route)


def test_the_audit_row_says_how_the_traffic_was_counted(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND, phase="request")
    row = desk.records.audit.entries(NAME, action="release.requested")[-1]
    assert row.details["thin"] is True
    assert row.details["traffic"]["requests_a_day"] == 0
    assert "0 requests in the 7.0 days before" in row.details["traffic"]["counted"]
    assert "loans/predictions" in row.details["traffic"]["counted"]


@pytest.mark.parametrize("is_personal", [True, False])
def test_a_recorded_plan_names_the_excluded_as_the_log_does(
    tmp_path: Path, is_personal: bool
) -> None:
    with serving(tmp_path, STEPS.replace("{thin", "{exclude: [7, 4915112345678], thin")) as desk:
        file = desk.usecases / f"{NAME}.yaml"
        if is_personal:
            key = "account_id: {type: int64"
            file.write_text(file.read_text().replace(key, f"{key}, pii: entity"))
        desk.candidate(2, SECOND)
        desk.deploy(SECOND)
        key = desk.settings.entity_secret.get_secret_value()
        name_of = entity_hasher(key) if is_personal else str
        assert under_way(desk).plan["exclude"] == [name_of("7"), name_of("4915112345678")]
        told = [str(row) for row in desk.records.audit.entries(NAME)]
        assert all("4915112345678" not in one for one in told) or not is_personal


def test_a_newer_candidate_waits_the_newest_alone_and_goes_on_after_the_end(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    desk.candidate(3, THIRD)
    waits = desk.deploy(THIRD, phase="request")
    assert (waits.state, waits.reason) == (
        "waiting",
        "model 3 waits for the release under way to end",
    )
    desk.candidate(4, FOURTH)
    assert desk.deploy(FOURTH, phase="request").state == "waiting"
    states = {one.challenger: one.state for one in desk.records.releases.of(NAME)}
    assert states == {1: "watched", 2: "running", 3: "superseded", 4: "waiting"}
    assert under_way(desk).challenger == 2, "nothing has happened to what is under way"
    late = desk.deploy(THIRD, phase="request")
    assert (late.state, "model 4 of the newer 2026-03-04 waits" in late.reason) == ("skipped", True)
    abort(desk, "enough of it")
    assert desk.deploy(FOURTH).state == "waiting"
    assert (under_way(desk).challenger, desk.records.releases.waiting(NAME)) == (4, None)


def test_a_candidate_that_would_wait_for_a_release_that_ended_meanwhile_starts_at_the_next_try(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release before it ends while its traffic is counted, and its run finds nobody waiting."""
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    desk.candidate(3, THIRD)

    def count(*arguments: Any) -> Traffic:
        monkeypatch.undo()
        abort(desk, "a wish")
        return count_traffic(*arguments)

    monkeypatch.setattr("include.deployment.releasing.count_traffic", count)
    with pytest.raises(Conflict, match="no release is under way any more"):
        desk.deploy(THIRD, phase="request")
    assert desk.records.releases.waiting(NAME) is None
    desk.deploy(THIRD, phase="request")
    assert (under_way(desk).challenger, under_way(desk).state) == (3, "trying")


@pytest.mark.parametrize("phase", ["request", "all"])
def test_a_newer_candidate_does_not_wait_for_a_release_that_nobody_drives(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """Its run is gone: no node tried it (request), or its judge went away in a step (all)."""
    desk.candidate(2, SECOND)
    desk.deploy(SECOND, phase=phase)
    left = under_way(desk)
    assert left.state == {"request": "trying", "all": "running"}[phase]
    desk.candidate(3, THIRD)
    assert "waits" in desk.deploy(THIRD, phase="request").reason, "it may be driven yet"
    later = desk.records.releases.now() + timedelta(seconds=left.plan["resume"] + 60)
    monkeypatch.setattr(type(desk.records.releases), "now", lambda self: later)
    desk.deploy(THIRD, phase="request")
    ended = desk.records.releases.get(NAME, left.id)
    assert ended is not None
    assert ended.state == "aborted"
    assert "longer than release.resume" in ended.reason
    assert (under_way(desk).challenger, desk.records.routes.get(NAME).held) == (3, [])


def test_a_waiting_candidate_is_judged_again_if_the_champion_has_changed(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    waiting = desk.candidate(3, THIRD)
    desk.deploy(THIRD, phase="request")
    steer(desk.settings, NAME, "promote", reason="good", actor="a person", at=utc_now())
    with pytest.raises(Conflict, match="judged against model 1, but model 2 serves") as refused:
        desk.deploy(THIRD, phase="request")
    assert refused.value.judge_again == (3, desk.records.routes.get(NAME).generation)
    desk.judge(waiting, again=True)
    desk.deploy(THIRD)
    assert (under_way(desk).challenger, under_way(desk).champion) == (3, 2)


def test_a_candidate_that_fails_its_second_judgement_leaves_the_queue(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    waiting = desk.candidate(3, THIRD)
    desk.deploy(THIRD, phase="request")
    desk.judge(waiting, "fail", again=True)
    assert desk.deploy(THIRD, phase="request").state == "skipped"
    assert desk.records.releases.waiting(NAME) is None
    left = desk.records.releases.of(NAME, limit=1)[0]
    assert (left.state, "AUC too low" in left.reason) == ("aborted", True)


def test_a_newer_candidate_replaces_the_release_under_way_where_the_use_case_says_so(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, STEPS.replace("{thin", "{newer: replace, thin")) as desk:
        replace_one(desk)


def replace_one(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    replaced = under_way(desk)
    desk.candidate(3, THIRD)
    desk.deploy(THIRD)
    ended = desk.records.releases.get(NAME, replaced.id)
    assert ended is not None
    assert (ended.state, ended.reason) == ("aborted", "replaced by model 3 of 2026-03-03")
    assert under_way(desk).challenger == 3
    assert ended.challenger_digest not in desk.records.routes.get(NAME).held
    told = desk.deploy(SECOND, phase="conclude")
    assert (told.state, "is aborted: replaced by model 3" in told.reason) == ("skipped", True)


def test_an_aborted_release_starts_again_from_its_first_step(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    before = under_way(desk)
    desk.records.releases.advance(before, {"word": "pass", "reason": ""}, entry())
    abort(desk, "a wish")
    concluded = desk.deploy(SECOND, phase="conclude")
    assert (concluded.state, "aborted: a wish" in concluded.reason) == ("skipped", True)
    desk.deploy(SECOND)
    assert (under_way(desk).challenger, under_way(desk).step) == (2, 0)
    assert under_way(desk).id != before.id


def test_a_freeze_starts_no_release_and_its_candidate_waits(desk: Desk) -> None:
    until = utc_now() + timedelta(days=1)
    told = steer(
        desk.settings, NAME, "freeze", reason="fair", actor="me", at=utc_now(), until=until
    )
    assert "no release starts until" in told
    desk.candidate(2, SECOND)
    assert desk.deploy(SECOND, phase="request").state == "waiting"
    assert desk.records.releases.running(NAME) is None
    steer(desk.settings, NAME, "thaw", reason="over", actor="me", at=utc_now())
    desk.deploy(SECOND)
    assert under_way(desk).challenger == 2


def test_a_rehearsal_and_a_backfill_change_nothing(desk: Desk) -> None:
    desk.candidate(2, SECOND)
    before = desk.records.routes.get(NAME)
    with desk.context("deploy_model", SECOND) as context:
        assert deploy_model.compute(replace(context, rehearsal=True)).state == "done"
        assert deploy_model.compute(replace(context, mode="backfill")).state == "skipped"
    assert desk.records.routes.get(NAME) == before
    assert len(desk.records.releases.of(NAME)) == 1


def two_good_models(desk: Desk) -> None:
    """Have model 2 as champion and model 1 before it, and a candidate, model 3."""
    desk.candidate(2, SECOND)
    desk.deploy(SECOND)
    steer(desk.settings, NAME, "promote", reason="good", actor="a person", at=utc_now())
    desk.candidate(3, THIRD)


def damage(desk: Desk, version: int) -> Path:
    model = desk.records.models.get(NAME, version)
    assert model is not None
    file = Path(model.bundle) / "model.txt"
    file.write_bytes(file.read_bytes() + b"x")
    return file


@pytest.mark.parametrize(
    ("version", "remedy"), [(1, "evergreen run train_model"), (2, "evergreen rollback loans")]
)
def test_no_release_starts_while_a_rollback_could_not_go_back(
    desk: Desk, version: int, remedy: str
) -> None:
    two_good_models(desk)
    file, before = damage(desk, version), desk.records.routes.get(NAME)
    with pytest.raises(ArtefactError, match=f"could not go back to model {version}") as refused:
        desk.deploy(THIRD, phase="request")
    assert remedy in str(refused.value)
    assert desk.records.routes.get(NAME) == before
    assert desk.records.releases.running(NAME) is None
    told = desk.records.audit.entries(NAME, action="release.requested.refused")
    assert "has digest" in told[-1].details["reason"]
    file.write_bytes(file.read_bytes()[:-1])
    desk.deploy(THIRD, phase="request")
    assert under_way(desk).challenger == 3
    row = desk.records.audit.entries(NAME, action="release.requested")[-1]
    assert row.details["way_back"] == [1, 2]


def test_no_release_is_ended_for_a_candidate_that_may_not_start(tmp_path: Path) -> None:
    with serving(tmp_path, STEPS.replace("{thin", "{newer: replace, thin")) as desk:
        two_good_models(desk)
        desk.deploy(THIRD)
        before = under_way(desk)
        desk.candidate(4, FOURTH)
        damage(desk, 1)
        with pytest.raises(ArtefactError, match="could not go back to model 1"):
            desk.deploy(FOURTH, phase="request")
        assert under_way(desk) == before


def test_a_way_back_is_signed_there_and_online(desk: Desk) -> None:
    two_good_models(desk)
    first = desk.records.models.get(NAME, 1)
    assert first is not None
    for changes, why in (
        ({"signature": None}, "model 1 is not signed"),
        ({"collected_at": NOW}, "were collected on"),
        ({"pins": "sha256:other"}, "has other serving pins"),
    ):
        desk.records.models.update(NAME, 1, **changes)
        with pytest.raises(ArtefactError, match=why):
            desk.deploy(THIRD, phase="request")
        desk.records.models.update(NAME, 1, **{name: getattr(first, name) for name in changes})
    file = desk.usecases / f"{NAME}.yaml"
    online = "source: events, visible: at_as_of, columns: {income"
    file.write_text(file.read_text().replace("source: events, columns: {income", online))
    with pytest.raises(ArtefactError, match=f"feature set {FEATURE_SET} is not online"):
        desk.deploy(THIRD, phase="request")
    publish(desk, 10)
    desk.deploy(THIRD, phase="request")
    assert under_way(desk).challenger == 3


def test_a_release_starts_where_there_is_nothing_left_to_go_back_to(desk: Desk) -> None:
    damage(desk, 1)
    desk.candidate(2, SECOND)
    desk.deploy(SECOND, phase="request")
    row = desk.records.audit.entries(NAME, action="release.requested")[-1]
    assert "has digest" in row.details["no_way_back"]["champion"]


def test_a_candidate_whose_key_is_revoked_while_it_is_tried_is_not_begun(desk: Desk) -> None:
    model = desk.candidate(2, SECOND)
    desk.deploy(SECOND, phase="request")
    revoke(
        desk.settings.signing_keys_folder, str(model.signing_key), at=NOW, actor="me", reason="lost"
    )
    until(
        lambda: (
            desk.records.nodes.of(NAME)[-1].generation >= desk.records.routes.get(NAME).generation
        ),
        what="report of the node",
    )
    outcome = desk.deploy(SECOND, phase="begin")
    assert (outcome.state, "is revoked" in outcome.reason) == ("skipped", True)
    route = desk.records.routes.get(NAME)
    assert (route.champion, route.challenger, route.held) == (1, None, [])


def entry() -> AuditEntry:
    return AuditEntry("test", NAME, "2", "test", {}, utc_now())


def abort(desk: Desk, reason: str) -> None:
    steer(desk.settings, NAME, "abort", reason=reason, actor="a person", at=utc_now())


def publish(desk: Desk, count: int) -> None:
    desk.publish({entity: (NOW, {**ROW, "income": float(entity)}) for entity in range(count)})


THIN = "{steps: [{share: 0}, {share: 5}], verdict: {scores: {margin: 5}, decisions: {margin: 1}}}"


def replayed(desk: Desk, key: str = SECOND) -> Outcome:
    publish(desk, 150)
    desk.candidate(2, key)
    return desk.deploy(key)


def test_thin_traffic_is_judged_on_the_rows_that_are_online_then_promoted(tmp_path: Path) -> None:
    with serving(tmp_path, THIN) as desk:
        assert replayed(desk).state == "done"
        route = desk.records.routes.get(NAME)
        assert (route.champion, route.previous) == (2, 1)
        row = desk.records.audit.entries(NAME, action="release.promoted")[-1]
        assert row.details["how"] == "thin traffic: judged on past requests"
        verdict = row.details["verdict"]
        assert (verdict["word"], "150 past requests" in verdict["reason"]) == ("pass", True)
        assert verdict["evidence"]["errors"]["requests"] == 150
        watched = desk.records.releases.watched(NAME)
        assert watched is not None
        assert (watched.challenger, watched.plan["thin"]) == (2, True)


@pytest.mark.parametrize("plan", [THIN, "{steps: []}", STEPS])
def test_a_release_that_is_paused_while_it_is_tried_is_begun_once_it_goes_on(
    tmp_path: Path, plan: str
) -> None:
    with serving(tmp_path, plan) as desk:
        publish(desk, 150)
        desk.candidate(2, SECOND)
        desk.deploy(SECOND, phase="request")
        say(desk, "pause")
        until(lambda: observe(desk) == "ready", what="trial of the node")
        before = desk.records.routes.get(NAME)
        for phase in ("begin", "all"):
            outcome = desk.deploy(SECOND, phase=phase)
            assert (outcome.state, "model 2 is paused before" in outcome.reason) == (
                "waiting",
                True,
            )
        assert (desk.records.routes.get(NAME), under_way(desk).paused) == (before, True)
        say(desk, "unpause")
        desk.deploy(SECOND, phase="begin")
        route = desk.records.routes.get(NAME)
        expected = (1, "shadow") if plan == STEPS else (2, None)
        assert (route.champion, route.mode) == expected


def test_a_release_that_is_paused_during_its_replay_is_not_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(*arguments: Any) -> Decision:
        monkeypatch.undo()
        say(desk, "pause")
        return judge_replay(*arguments)

    with serving(tmp_path, THIN) as desk:
        monkeypatch.setattr("include.deployment.releasing.judge_replay", judge)
        assert replayed(desk).state == "waiting"
        assert (under_way(desk).state, under_way(desk).paused) == ("trying", True)
        assert desk.records.routes.get(NAME).champion == 1
        say(desk, "unpause")
        assert desk.deploy(SECOND, phase="begin").state == "done"
        assert desk.records.routes.get(NAME).champion == 2


def test_a_release_that_a_person_has_paused_is_not_taken_for_abandoned(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.candidate(2, SECOND)
    desk.deploy(SECOND, phase="request")
    say(desk, "pause")
    desk.candidate(3, THIRD)
    now = desk.records.releases.now()
    later = now + timedelta(seconds=under_way(desk).plan["resume"] + 60)
    monkeypatch.setattr(type(desk.records.releases), "now", lambda self: later)
    assert "waits" in desk.deploy(THIRD, phase="request").reason
    assert (under_way(desk).challenger, under_way(desk).state) == (2, "trying")
    say(desk, "unpause")
    assert under_way(desk).entered_at >= now, "it has all its time to be tried again"


def say(desk: Desk, action: str) -> None:
    steer(desk.settings, NAME, action, reason="to look", actor="a person", at=utc_now())


def observe(desk: Desk) -> str:
    return node_readiness(desk.records.routes.get(NAME), desk.records.nodes.of(NAME)).state


def test_a_model_that_is_worse_on_past_requests_is_rolled_back(tmp_path: Path) -> None:
    """Another seed scores otherwise, which a narrow margin does not tolerate."""
    narrow = THIN.replace("margin: 5", "margin: 0.01").replace("margin: 1", "margin: 0.001")
    with serving(tmp_path, narrow) as desk:
        outcome = replayed(desk)
        assert outcome.state == "held", outcome.reason
        route = desk.records.routes.get(NAME)
        assert (route.champion, route.challenger, len(route.held)) == (1, None, 1)
        assert desk.records.releases.of(NAME)[0].rolled_back_by_itself


def test_without_past_requests_nothing_is_known_and_it_is_aborted(tmp_path: Path) -> None:
    with serving(tmp_path, THIN) as desk:
        desk.candidate(2, SECOND)
        outcome = desk.deploy(SECOND)
        assert (outcome.state, "0 past requests" in outcome.reason) == ("skipped", True)
        route = desk.records.routes.get(NAME)
        assert (route.champion, route.challenger, route.held) == (1, None, [])


def test_a_small_use_case_releases_its_second_model_by_the_default_plan(tmp_path: Path) -> None:
    """All of its entities are asked; the audit row says how few they are, and what they show."""
    with serving(tmp_path, THIN.replace("steps: [{share: 0}, {share: 5}], ", "")) as desk:
        publish(desk, 12)
        desk.candidate(2, SECOND)
        assert desk.deploy(SECOND).state == "done"
        assert desk.records.routes.get(NAME).champion == 2
        row = desk.records.audit.entries(NAME, action="release.promoted")[-1]
        reason = row.details["verdict"]["reason"]
        assert reason.startswith("thin traffic: 12 past requests, nothing is worse")
        assert "they are all that there is, and show no less than errors by" in reason
