"""What a partition may release, decided on the records alone: no node runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.clock import utc_now
from include.deployment.candidate import Candidate, decide_release
from include.errors import Conflict
from include.models.private_key import rotate
from include.models.signing import COLUMNS, signed_columns
from include.pipeline.release_outputs import DeploymentOutputs
from include.pipeline.stage import Outcome
from tests.builders.serving import FIRST, NAME, Desk

SECOND, THIRD = "2026-03-02", "2026-03-03"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def decide(desk: Desk, key: str = FIRST) -> Candidate | Outcome:
    with desk.context("deploy_model", key) as context:
        return decide_release(context)


def refused(desk: Desk, key: str = FIRST) -> Outcome:
    outcome = decide(desk, key)
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_judged_and_packaged_model_may_be_released(desk: Desk) -> None:
    model = desk.candidate(1)
    assert decide(desk) == Candidate(model, None, 1)


@pytest.mark.parametrize(
    ("mode", "target", "verdict", "reason"),
    [
        ("backfill", "judged", "pass", "backfill"),
        ("live", "judged", "pass", "target judged"),
        ("live", "deployed", "fail", "the verdict is fail: AUC too low"),
        ("live", "deployed", "hold", "the verdict is hold"),
    ],
)
def test_what_is_not_released_says_why(
    desk: Desk, mode: str, target: str, verdict: str, reason: str
) -> None:
    desk.ask(FIRST, mode, target)
    model = desk.train(1)
    desk.judge(model, verdict)
    outcome = refused(desk)
    assert outcome.state == "skipped"
    assert reason in outcome.reason
    assert desk.records.routes.get(NAME).generation == 1, "nothing but the use case is recorded"


def test_what_is_not_packaged_says_so(desk: Desk) -> None:
    desk.ask(FIRST)
    desk.judge(desk.train(1))
    assert refused(desk).reason == "it is not packaged: package_model has not run"


def test_what_serves_is_done_and_so_is_its_equal(desk: Desk) -> None:
    model = desk.candidate(1)
    generation = desk.record_route(champion=1)
    served = refused(desk)
    assert (served.state, served.digest, served.reason) == ("done", model.model_digest, "")
    assert served.outputs == {
        "champion": 1,
        "generation": generation,
        "version": 1,
        "released": 1,
    }
    desk.candidate(2, SECOND, seed=1)
    assert refused(desk, SECOND).reason == "it equals the champion, model 1: nothing to release"


def test_what_was_released_stays_done_after_it_was_replaced(desk: Desk) -> None:
    desk.candidate(1)
    outputs = DeploymentOutputs(champion=1, generation=1, version=1, released=1).plain()
    desk.record("deploy_model", FIRST, outputs, digest="sha256:x", state="done")
    desk.record_route(champion=1)
    desk.candidate(2, SECOND)
    desk.record_route(champion=2)
    assert refused(desk).reason == "it was released, and model 2 has replaced it since"
    assert refused(desk).outputs["champion"] == 2


def test_a_newer_partition_that_is_being_released_goes_first(desk: Desk) -> None:
    desk.candidate(1)
    desk.candidate(2, SECOND)
    desk.record_route(challenger=2)
    assert refused(desk).reason == f"model 2 of the newer {SECOND} is being released"
    assert isinstance(decide(desk, SECOND), Candidate)


def test_another_champion_than_it_was_judged_against_asks_for_a_new_judgement(desk: Desk) -> None:
    desk.candidate(1)
    desk.candidate(2, SECOND)
    generation = desk.record_route(champion=1)
    with pytest.raises(
        Conflict, match="judged against nobody, but model 1 serves; judge it again"
    ) as overtaken:
        decide(desk, SECOND)
    assert overtaken.value.judge_again == (2, generation)


def test_a_digest_that_was_never_judged_live_is_in_conflict(desk: Desk) -> None:
    desk.ask(THIRD)
    model = desk.train(3, THIRD)
    desk.record("evaluate_model", THIRD, {"verdict": "pass", "version": 3}, digest="sha256:e")
    desk.package(model)
    with pytest.raises(Conflict, match="never judged live"):
        decide(desk, THIRD)
    assert desk.records.routes.get(NAME).generation == 1, "nothing but the use case is recorded"


def test_a_model_whose_key_has_ended_begins_no_release_and_one_that_has_begun_goes_on(
    desk: Desk,
) -> None:
    model = desk.candidate(1)
    rotate(desk.settings, utc_now())
    with pytest.raises(Conflict, match=r"was retired .*evergreen run package_model"):
        decide(desk)
    desk.record_route(challenger=1)
    assert isinstance(decide(desk), Candidate)
    desk.record_route(challenger=None)
    signed = desk.signed(model)
    desk.records.models.update(NAME, 1, **signed_columns(signed))
    assert isinstance(decide(desk), Candidate)
    desk.records.models.update(NAME, 1, **dict.fromkeys(COLUMNS))
    with pytest.raises(Conflict, match="is not signed"):
        decide(desk)
