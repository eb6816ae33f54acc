"""The states of the models that a node holds: tried, loaded, refused, ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.errors import Unavailable
from include.models.bento_sources import sources_folder
from include.models.signing import verify_by_folder
from include.records.records import Model
from include.serving import isolated_model, model_states, trials
from include.serving.model_states import Candidate, ModelStates
from include.serving.snapshot import Loaded
from include.serving.workers import Workers
from tests.builders.isolated import HELLO, write_bento
from tests.builders.serving import ROW, Desk

pytestmark = pytest.mark.anyio
OTHER_PINS = "sha256:of another installation"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("states"))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a process the time that a busy machine takes."""
    monkeypatch.setattr(isolated_model, "DEADLINE", 30.0)


@pytest.fixture
def steps() -> list[str]:
    """The states that the champion went through."""
    return []


@pytest.fixture
async def states(desk: Desk, steps: list[str]) -> AsyncIterator[ModelStates]:
    def changed() -> None:
        steps.extend(one.state for one in states._candidates.values())

    states = ModelStates(
        ArtefactStore.of(desk.settings), Workers(), verifier(desk), changed=changed
    )
    yield states
    states.close()


def verifier(desk: Desk) -> Callable[[Model], None]:
    """Return what a node verifies signatures by."""
    return partial(verify_by_folder, desk.settings.signing_keys_folder)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def candidate(states: ModelStates, version: int) -> Candidate:
    return next(one for key, one in states._candidates.items() if key[0] == version)


async def test_a_model_of_the_nodes_own_pins_goes_through_its_states_into_this_process(
    desk: Desk, states: ModelStates, steps: list[str]
) -> None:
    model = desk.train(1)
    states.want({"champion": model})
    await until(lambda: candidate(states, 1).state == "loaded")
    assert steps == ["wanted", "verified", "tried", "loaded"]
    loaded = candidate(states, 1).alive
    assert loaded is not None
    assert (loaded.remote, loaded.digest) == (None, model.model_digest)
    assert loaded.scorer is not None
    assert 0 < loaded.scorer.one(ROW) < 1
    states.want({"previous": model})
    assert candidate(states, 1).alive is loaded, "another role needs no other load"


async def test_who_answers_waits_behind_no_trial(desk: Desk) -> None:
    """Trials of models that may answer later take turns, over all use cases."""
    workers = Workers()
    states = ModelStates(
        ArtefactStore.of(desk.settings), workers, verifier(desk), changed=lambda: None
    )
    for _ in range(2):
        await workers.trial_turn.acquire()
    assert workers.trial_turn.locked()
    states.want({"champion": desk.train(41), "challenger": desk.train(42)})
    await until(lambda: candidate(states, 41).state == "loaded")
    assert candidate(states, 42).state in ("wanted", "verified")
    workers.trial_turn.release()
    await until(lambda: candidate(states, 42).state == "loaded")
    states.close()
    workers.close()


async def test_another_model_runs_as_its_bento_and_is_ended_when_nobody_needs_it(
    desk: Desk, states: ModelStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_states, "LINGER_SECONDS", 3.0)
    tag = write_bento(desk.settings.home)
    states.want({"champion": desk.train(2, pins=OTHER_PINS, bento_tag=tag)})
    await until(lambda: candidate(states, 2).state == "loaded")
    loaded = candidate(states, 2).alive
    assert loaded is not None
    assert loaded.scorer is None
    assert loaded.remote is not None
    assert (await loaded.remote.ask({})).value == 0.25
    states.want({}, also=[2])
    assert states._candidates, "who answers stays until somebody else can"
    states.want({})
    assert not states._candidates
    assert (await loaded.remote.ask({})).value == 0.25  # for requests in hand
    await until(lambda: not loaded.remote.alive)  # type: ignore[union-attr]


async def test_a_process_that_ended_is_started_again(desk: Desk, states: ModelStates) -> None:
    states.want(
        {"champion": desk.train(3, pins=OTHER_PINS, bento_tag=write_bento(desk.settings.home))}
    )
    await until(lambda: candidate(states, 3).state == "loaded")
    first = candidate(states, 3).alive
    assert first is not None
    assert first.remote is not None
    first.remote.close()
    await until(lambda: candidate(states, 3).alive not in (None, first))


async def test_what_is_wrong_is_refused_for_good_and_names_the_way_out(
    desk: Desk, states: ModelStates
) -> None:
    changed = desk.train(4)
    (Path(changed.bundle) / "model.txt").write_text("changed")
    states.want({"champion": changed, "previous": desk.train(5, pins=OTHER_PINS)})
    for version, reason in ((4, "has digest"), (5, "package it again")):
        await until(lambda version=version: candidate(states, version).state == "refused")  # type: ignore[misc]
        assert reason in candidate(states, version).reason
    states.try_again(refused=False)
    assert candidate(states, 4).state == "refused"
    desk.train(4)  # a person puts the right files back, and asks for another try
    states.try_again(refused=True)
    await until(lambda: candidate(states, 4).state == "loaded")


async def test_a_process_that_answers_otherwise_than_its_model_is_refused(
    desk: Desk, states: ModelStates
) -> None:
    """Whatever it says of itself: its code may have been changed."""
    tag = write_bento(desk.settings.home, "loans_scorer:changed", off=0.2)
    states.want({"champion": desk.train(9, pins=OTHER_PINS, bento_tag=tag)})
    await until(lambda: candidate(states, 9).state == "refused")
    assert "golden row 0" in candidate(states, 9).reason
    assert candidate(states, 9).alive is None


async def test_code_that_is_not_the_recorded_one_never_runs(
    desk: Desk, states: ModelStates, tmp_path: Path
) -> None:
    mark = tmp_path / "it ran"
    tag = write_bento(desk.settings.home, "loans_scorer:verified")
    folder = sources_folder(desk.settings.home, tag)
    model = desk.train(10, pins=OTHER_PINS, bento_tag=tag)
    states.want({"champion": model})
    await until(lambda: candidate(states, 10).state == "loaded")
    (folder / "lane.py").write_text(f"open({str(mark)!r}, 'w')\n")
    states.want({})
    states.want({"champion": model})
    await until(lambda: candidate(states, 10).state == "refused")
    assert "it was changed" in candidate(states, 10).reason
    assert not mark.exists()


@pytest.mark.parametrize("missing", ["artefact_digest", "bento_digest"])
async def test_code_of_which_no_digest_is_recorded_never_runs(
    desk: Desk, states: ModelStates, missing: str
) -> None:
    tag = write_bento(desk.settings.home, "loans_scorer:unverified")
    model = desk.packaged_as(
        replace(desk.train(13, pins=OTHER_PINS), bento_tag=tag),
    )
    states.want({"champion": desk.signed(replace(model, **{missing: None}))})
    await until(lambda: candidate(states, 13).state == "refused")
    assert "Package the model again" in candidate(states, 13).reason
    assert candidate(states, 13).alive is None


async def test_a_model_whose_row_was_changed_is_refused_before_anything_of_it_runs(
    desk: Desk, states: ModelStates
) -> None:
    """Its pins too: by them it is decided whose code answers."""
    tag = write_bento(desk.settings.home, "loans_scorer:moved")
    model = desk.train(14, bento_tag=tag)
    changed = desk.signed(replace(model, version=15, pins=OTHER_PINS))
    states.want({"champion": model, "previous": changed})
    await until(lambda: candidate(states, 14).state == "loaded")
    await until(lambda: candidate(states, 15).state == "refused")
    assert "its row was changed" in candidate(states, 15).reason


async def test_a_model_that_is_packaged_again_is_tried_again(
    desk: Desk, states: ModelStates
) -> None:
    model = desk.train(11, pins=OTHER_PINS)
    states.want({"champion": model})
    await until(lambda: candidate(states, 11).state == "refused")
    assert "package it again" in candidate(states, 11).reason
    states.want({"champion": model})
    assert candidate(states, 11).state == "refused", "nothing has changed"
    tag = write_bento(desk.settings.home, "loans_scorer:again")
    packaged = desk.signed(desk.packaged_as(replace(model, bento_tag=tag)))
    states.want({"champion": packaged})
    await until(lambda: candidate(states, 11).state == "loaded")


async def test_a_golden_row_that_is_refused_refuses_the_model(
    desk: Desk, states: ModelStates
) -> None:
    first = f"{HELLO}\nknown = []\n_load, json.loads = json.loads, lambda line: {{"
    first += '**_load(line), "row": {"do": "refuse"}}'
    tag = write_bento(desk.settings.home, "loans_scorer:strict", first)
    states.want({"champion": desk.train(12, pins=OTHER_PINS, bento_tag=tag)})
    await until(lambda: candidate(states, 12).state == "refused")
    assert "golden row 0 is refused" in candidate(states, 12).reason


async def test_what_is_away_is_loaded_once_it_is_there(
    desk: Desk, states: ModelStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late mount, a restore: nobody has to ask for another try."""
    monkeypatch.setattr(model_states, "FIRST_PAUSE", 0.1)
    model = desk.train(6)
    Path(model.bundle).rename(f"{model.bundle}.away")
    states.want({"champion": model})
    await until(
        lambda: candidate(states, 6).failures >= 2 and candidate(states, 6).state == "could_not"
    )
    assert candidate(states, 6).next_try > 0
    Path(f"{model.bundle}.away").rename(model.bundle)
    await until(lambda: candidate(states, 6).state == "loaded")
    assert (candidate(states, 6).failures, candidate(states, 6).reason) == (0, "")


async def test_in_a_home_that_was_moved_a_model_is_found(
    desk: Desk, states: ModelStates, tmp_path: Path
) -> None:
    """Another mount point: where its bundle lies is on record as it was then."""
    model = desk.train(16)
    elsewhere = tmp_path / "models" / "home before" / "models" / "16"
    states.want({"champion": replace(model, bundle=str(elsewhere))})
    await until(lambda: candidate(states, 16).state == "loaded")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(60)", "did not answer its golden rows in 0.3 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed (SIGKILL)"),
    ],
)
async def test_a_trial_that_times_out_or_is_killed_is_no_refusal(
    desk: Desk,
    states: ModelStates,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    reason: str,
) -> None:
    monkeypatch.setattr(model_states, "FIRST_PAUSE", 0.1)
    is_slow = "sleep" in program
    with monkeypatch.context() as sick:
        sick.setattr(trials, "python_module", lambda *_: [sys.executable, "-c", program])
        sick.setattr(trials, "SECONDS", 0.3 if is_slow else 30.0)
        states.want({"champion": desk.train(7)})
        await until(lambda: candidate(states, 7).state == "could_not")
        assert reason in candidate(states, 7).reason
    await until(lambda: candidate(states, 7).state == "loaded")


async def test_a_challenger_must_pass_its_check_too(
    desk: Desk, states: ModelStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_states, "FIRST_PAUSE", 0.1)
    problems = ["its features are not online"]

    async def check(_: Loaded) -> None:
        if problems:
            raise Unavailable(problems[0])

    states._check = check
    model = desk.train(8)
    states.want({"challenger": model})
    await until(lambda: candidate(states, 8).state == "could_not")
    assert candidate(states, 8).reason == problems[0]
    assert not candidate(states, 8).is_ready
    problems.clear()
    await until(lambda: candidate(states, 8).is_ready)


async def test_a_challenger_runs_apart_and_its_process_answers_until_it_is_loaded_as_champion(
    desk: Desk, states: ModelStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_states, "LINGER_SECONDS", 0.1)
    model = desk.train(61)
    states.want({"challenger": model})
    await until(lambda: candidate(states, 61).is_ready)
    apart = candidate(states, 61).alive
    assert apart is not None
    assert apart.scorer is None
    assert apart.remote is not None
    score = (await apart.remote.ask(ROW)).value
    states.want({"champion": model})
    assert candidate(states, 61).alive is apart, "who is there answers on"
    await until(lambda: candidate(states, 61).alive is not apart)
    loaded = candidate(states, 61).alive
    assert loaded is not None
    assert loaded.scorer is not None
    assert loaded.scorer.one(ROW) == pytest.approx(score, abs=1e-12)
    await until(lambda: not apart.remote.alive)  # type: ignore[union-attr]
    assert candidate(states, 61).state == "loaded"


async def test_a_challenger_with_a_bento_runs_as_that(desk: Desk, states: ModelStates) -> None:
    tag = write_bento(desk.settings.home, "loans_scorer:apart")
    states.want({"challenger": desk.train(62, bento_tag=tag)})
    await until(lambda: candidate(states, 62).is_ready)
    apart = candidate(states, 62).alive
    assert apart is not None
    assert apart.remote is not None
    assert (await apart.remote.ask({**ROW, "score": 0.125})).value == 0.125, "that code answers"


async def test_a_champion_that_cannot_be_loaded_here_is_answered_for_by_its_process(
    desk: Desk, states: ModelStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = desk.train(63)
    states.want({"challenger": model})
    await until(lambda: candidate(states, 63).is_ready)
    apart = candidate(states, 63).alive

    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("no memory")

    monkeypatch.setattr(trials, "try_model", fail)
    states.want({"champion": model})
    await until(lambda: candidate(states, 63).state == "could_not")
    assert candidate(states, 63).alive is apart
    assert apart is not None
    assert apart.remote is not None
    assert 0 < (await apart.remote.ask(ROW)).value < 1
