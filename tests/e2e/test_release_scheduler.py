"""Releases whose Airflow is lost on the way: its scheduler alone, or with it the triggerer.

A step is judged by the triggerer, which goes on without a scheduler; what nobody goes on with is
the step after it. So the scheduler alone is lost before the step of 25 %, and together with the
triggerer in it. The supervisor starts a killed process again within seconds: to keep it away, what
it starts is frozen (SIGSTOP), as a process that hangs, and thawed when it is to be back.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from include.clock import utc_now, wait_for
from include.config.settings import Settings
from include.installation.services import command_of
from include.records.records import Release
from tests.builders.ports import free_ports
from tests.e2e.conftest import ENTITIES, write_use_cases
from tests.e2e.installations import Embedded
from tests.e2e.test_release import NAME, champion, ended, newest, shown, train_another

pytestmark = [pytest.mark.slow, pytest.mark.drill, pytest.mark.timeout(1200)]

BEAT = 15  # seconds
LATE = 45  # seconds after which a release is not taken up; a busy scheduler takes ten between steps
PLAN = """
release:
  thin: hold
  beat: {beat}s
  resume: {resume}
  watch: 5s
  steps:
    - {{share: 0, bake: {shadow}s, requests: 20, entities: 5, deadline: 10m}}
    - {{share: 25, bake: {full}s, requests: 20, entities: 2, deadline: 10m}}
"""


@dataclass(frozen=True)
class Answer:
    """What a caller got, and when, in monotonic seconds; no version where it is no prediction."""

    at: float
    came: str
    version: int | None


class Caller:
    """Somebody who asks the node for all entities in turn, and keeps each answer."""

    def __init__(self, url: str) -> None:
        self._url, self._ends = f"{url}/v1/{NAME}/predict", threading.Event()
        self.answers: list[Answer] = []
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        entity = 0
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not self._ends.wait(0.02):
                entity = entity % ENTITIES + 1
                self.answers.append(self._answer(client, entity))

    def _answer(self, client: httpx.Client, entity: int) -> Answer:
        try:
            told = client.post(self._url, json={"entity": entity})
        except httpx.HTTPError as error:
            return Answer(time.monotonic(), repr(error), None)
        version = told.json()["model_version"] if told.status_code == 200 else None
        return Answer(time.monotonic(), str(told.status_code), version)

    def versions(self, since: float) -> set[int | None]:
        """Return by which models it was answered since a moment."""
        return {one.version for one in list(self.answers) if one.at >= since}

    @property
    def failed(self) -> list[Answer]:
        return [one for one in self.answers if one.came != "200"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """An installation of its own whose processes the tests may kill, with a champion."""
    folder = tmp_path_factory.mktemp("scheduler")
    write_use_cases(folder / "usecases")
    (folder / "usecases" / "fresh.yaml").unlink()
    write_plan(folder / "usecases", "10m", (2, 5))  # its DAG has the tasks of the steps from now on
    ports = free_ports(3)
    settings = Settings(
        home=folder / "var",
        usecases=str(folder / "usecases"),
        airflow_port=ports[0],
        mlflow_port=ports[1],
        node_port=ports[2],
    )
    started = Embedded(settings)
    try:
        started.wait(lambda: "Ctrl-C stops everything" in started.said, "answer", 600)
        yield started
    finally:
        started.end()


@pytest.fixture
def caller(airflow: Embedded) -> Iterator[Caller]:
    with Caller(airflow.settings.node_url) as caller:
        yield caller


def write_plan(usecases: Path, resume: str, bakes: tuple[int, int]) -> None:
    """Let the next release go by a plan of seconds: those of the two steps, and `resume`."""
    path = usecases / f"{NAME}.yaml"
    text = PLAN.format(beat=BEAT, resume=resume, shadow=bakes[0], full=bakes[1])
    # Last in the file, from its first to its last line.
    path.write_text(re.sub(r"\nrelease:[^\0]*", text, path.read_text()))


def start_release(airflow: Embedded, resume: str, bakes: tuple[int, int]) -> Release:
    """Start the release of another model, and return it in its shadow step."""
    before = {release.id for release in airflow.records.releases.of(NAME)}
    write_plan(Path(airflow.settings.usecases), resume, bakes)
    train_another(airflow)
    airflow.wait(
        lambda: newest(airflow).id not in before and newest(airflow).state == "running",
        "release in its steps",
        180,
        every=0.1,
    )
    return newest(airflow)


def until_step(airflow: Embedded, step: int) -> None:
    airflow.wait(lambda: newest(airflow).step == step, f"step {step}", 90, every=0.1)


def until_judged(airflow: Embedded, task_id: str) -> None:
    """Wait until the triggerer judges a step: until then the task does, within the scheduler."""

    def is_deferred() -> bool:
        runs = airflow.api.runs(f"{NAME}__deploy_model", states=("running",))
        tasks = [task for run in runs for task in airflow.api.tasks(run)]
        return any(task.task_id == task_id and task.state == "deferred" for task in tasks)

    airflow.wait(is_deferred, f"wait of {task_id}", 60, every=0.2)


def process_of(airflow: Embedded, name: str) -> psutil.Process | None:
    """Return a process that the supervisor has started, known by its whole command line."""
    state = json.loads((airflow.settings.home / "run" / "supervisor.json").read_text())
    for session in state["sessions"]:
        try:
            process = psutil.Process(session["pid"])
            if process.cmdline() == command_of(airflow.settings, name):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


@contextmanager
def without(airflow: Embedded, *names: str) -> Iterator[None]:
    """Kill parts of Airflow, and freeze what is started in their place until the block ends."""
    killed = {name: process_of(airflow, name) for name in names}
    for process in killed.values():
        assert process is not None
        process.kill()
    frozen = []
    for name, before in killed.items():

        def successor(name: str = name, before: psutil.Process | None = before) -> object:
            found = process_of(airflow, name)
            return None if found == before else found

        process = wait_for(successor, seconds=30, every=0.02)
        assert isinstance(process, psutil.Process), f"no {name} was started again"
        process.suspend()  # it still imports Airflow, which takes seconds: it has done nothing yet
        frozen.append(process)
    try:
        yield
    finally:
        for process in frozen:
            process.resume()


def until_gone(airflow: Embedded, caller: Caller, version: int) -> None:
    """Wait until two seconds have passed, each entity asked twice, without a model's answers."""

    def is_gone() -> bool:
        return version not in caller.versions(time.monotonic() - 2)

    airflow.wait(is_gone, f"traffic without model {version}", 2 * BEAT)


def until_told(airflow: Embedded) -> None:
    """Wait until the node says why it gives the challenger nothing."""

    def is_told() -> bool:
        reports = airflow.records.nodes.of(NAME)
        return any("no new beat of the judge" in one.reason for one in reports)

    airflow.wait(is_told, "word of the node", 30)


def actions(airflow: Embedded, release: Release) -> list[str]:
    """Return what was done to a release, in this order, but for its verdicts."""
    entries = airflow.records.audit.entries(NAME, limit=200)
    mine = [one.action for one in entries if one.details.get("release") == release.id]
    return [one.removeprefix("release.") for one in mine if one != "release.judged"]


def say(case: str, end: str, since: float, caller: Caller) -> None:
    """Print a line as the table of docs/how-to/drill.md has them."""
    answers = [one for one in list(caller.answers) if one.at >= since]
    failed = [one for one in answers if one.came != "200"]
    took = f"{time.monotonic() - since:.0f}"
    sys.stdout.write(f"| {case} | {end} | {took} | {len(answers)} | {len(failed)} |\n")


def test_a_step_is_judged_without_a_scheduler_and_a_bad_model_goes_home(
    airflow: Embedded, caller: Caller
) -> None:
    began, before = utc_now(), champion(airflow)
    release = start_release(airflow, "10m", (2, 300))
    until_step(airflow, 1)
    until_judged(airflow, "share_25")
    harmed = time.monotonic()
    with without(airflow, "scheduler"):
        time.sleep(BEAT + 10)
        assert champion(airflow) == before
        # Nodes hear the judge all the same: its share is what the step gives it.
        assert caller.versions(time.monotonic() - 5) == {before, release.challenger}
        airflow.records.releases.latch(NAME, release.id, "a node", "boot", "it answers NaN")
        airflow.wait(lambda: newest(airflow).state == "rolled_back", "rollback", BEAT)
        until_gone(airflow, caller, release.challenger)
        say("scheduler dead, a bad model", newest(airflow).state, harmed, caller)
    run = ended(airflow, began)
    states = {task.task_id: task.state for task in airflow.api.tasks(run)}
    assert (run.state, states["announce"]) == ("failed", "success"), shown(airflow, run)
    assert newest(airflow).gap_seconds == 0
    assert "suspended" not in actions(airflow, release)
    assert champion(airflow) == before
    assert caller.failed == []


@dataclass(frozen=True)
class Loss:
    """What is lost: these processes, once the triggerer judges this step.

    `bakes` are the seconds of the steps: that one lasts until its judge is lost.
    """

    names: tuple[str, ...]
    step: int
    task_id: str
    bakes: tuple[int, int]


LOSSES = {
    "scheduler": Loss(("scheduler",), 0, "shadow", (30, 5)),
    "scheduler and triggerer": Loss(("scheduler", "triggerer"), 1, "share_25", (2, 30)),
}


@contextmanager
def lost(
    airflow: Embedded, caller: Caller, loss: Loss, release: Release, before: int
) -> Iterator[float]:
    """Lose processes, so that nobody judges the step of 25 %, until the block ends."""
    until_step(airflow, loss.step)
    until_judged(airflow, loss.task_id)
    with without(airflow, *loss.names):
        harmed = time.monotonic()
        until_step(airflow, 1)
        airflow.wait(lambda: release.challenger in caller.versions(harmed), "answers at 25 %", BEAT)
        until_gone(airflow, caller, release.challenger)
        home = time.monotonic()
        until_told(airflow)
        time.sleep(2.0)
        assert caller.versions(home) == {before}
        assert newest(airflow).state == "running"
        yield harmed


@pytest.mark.parametrize("what", LOSSES)
def test_a_release_whose_airflow_is_back_in_time_goes_on_with_its_step(
    airflow: Embedded, caller: Caller, what: str
) -> None:
    began, before = utc_now(), champion(airflow)
    release = start_release(airflow, "10m", LOSSES[what].bakes)
    with lost(airflow, caller, LOSSES[what], release, before) as harmed:
        stood = newest(airflow)
    back = time.monotonic()
    airflow.wait(lambda: newest(airflow).gap_seconds > 0, "somebody who goes on", 90)
    taken_up = newest(airflow)
    assert (taken_up.step, taken_up.state, taken_up.suspended) == (1, "running", False)
    assert taken_up.gap_seconds > BEAT
    assert taken_up.entered_at > stood.entered_at, "its bake did not begin anew"
    airflow.wait(lambda: release.challenger in caller.versions(back), "answers at 25 % again", BEAT)
    run = ended(airflow, began)
    assert run.state == "success", shown(airflow, run)
    say(f"{what}, back in time", newest(airflow).state, harmed, caller)
    assert (newest(airflow).state, champion(airflow)) == ("promoted", release.challenger)
    done = actions(airflow, release)
    assert done.index("suspended") + 1 == done.index("resumed"), done
    assert caller.failed == []


@pytest.mark.parametrize("what", LOSSES)
def test_a_release_whose_airflow_is_back_too_late_is_aborted(
    airflow: Embedded, caller: Caller, what: str
) -> None:
    began, before = utc_now(), champion(airflow)
    release = start_release(airflow, f"{LATE}s", LOSSES[what].bakes)
    with lost(airflow, caller, LOSSES[what], release, before) as harmed:
        away_for(airflow, LATE + 2)
    run = ended(airflow, began)
    assert run.state == "success", shown(airflow, run)
    say(f"{what}, back too late", newest(airflow).state, harmed, caller)
    found, route = newest(airflow), airflow.records.routes.get(NAME)
    assert (found.state, found.step) == ("aborted", 1)
    assert found.reason.startswith("judge away for "), found.reason
    assert (route.champion, route.challenger, route.share) == (before, None, 0)
    assert release.challenger_digest not in route.held
    states = {task.task_id: task.state for task in airflow.api.tasks(run)}
    assert (states["share_25"], states["announce"]) == ("skipped", "success"), states
    assert caller.failed == []


def away_for(airflow: Embedded, seconds: float) -> None:
    """Wait until nobody has judged the release for so long, by the clock that decides it."""
    releases = airflow.records.releases

    def is_over() -> bool:
        beat = releases.last_beat(NAME)
        since = max(newest(airflow).entered_at, *([beat.at] if beat else []))
        return (releases.now() - since).total_seconds() > seconds

    airflow.wait(is_over, f"{seconds:.0f} s without a judge", 2 * seconds)
