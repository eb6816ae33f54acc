"""Releases in steps through Airflow, under traffic, by real processes: to the champion, aborted by
a person's form, and held back by a freeze. They share the installation of the chain.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.clock import utc_now
from include.deployment.judged_moves import entry_of
from include.orchestration.airflow_runs import Run
from include.records.records import Release
from tests.e2e.conftest import ENTITIES
from tests.e2e.installations import Embedded, Installation
from tests.e2e.test_chain import newest_key, uri

NAME = "visits"
STEPS = ("shadow", "share_50")
DAY = timedelta(days=1)
# A beat of 15 s, the least, is missed on a busy machine, between two tasks of Airflow.
RELEASE = """
release:
  thin: hold
  beat: 30s
  watch: 20s
  steps:
    - {share: 0, bake: 2s, requests: 20, entities: 5, deadline: 10m}
    - {share: 50, bake: 2s, requests: 20, entities: 5, deadline: 10m}
"""


@pytest.fixture(autouse=True, scope="module")
def traffic(embedded: Embedded) -> Iterator[None]:
    """Have releases in short steps, and ask the node of all entities in turn."""
    take_steps(embedded)
    with asked_all_the_time(embedded):
        yield


def take_steps(embedded: Embedded) -> None:
    """Let the next releases of the use case take steps, and wait until its DAG has them."""
    path = Path(embedded.settings.usecases) / f"{NAME}.yaml"
    path.write_text(re.sub(r"\nrelease: .*\n", RELEASE, path.read_text()))
    embedded.wait(
        lambda: set(STEPS) <= embedded.api.task_ids(f"{NAME}__deploy_model"), "its steps", 120
    )


@contextmanager
def asked_all_the_time(embedded: Embedded) -> Iterator[None]:
    stop = threading.Event()
    url = f"{embedded.settings.node_url}/v1/{NAME}/predict"

    def ask() -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            for entity in itertools.cycle(range(1, ENTITIES + 1)):
                if stop.wait(0.02):
                    return
                with suppress(httpx.HTTPError):
                    client.post(url, json={"entity": entity})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_healthy_release_goes_through_its_steps_to_the_champion(embedded: Embedded) -> None:
    began, before = utc_now(), champion(embedded)
    train_another(embedded)
    run = ended(embedded, began)
    assert run.state == "success", shown(embedded, run)
    states = {task.task_id: task.state for task in embedded.api.tasks(run)}
    assert set(states.values()) == {"success"}, states
    release = newest(embedded)
    assert (release.state, release.challenger) == ("promoted", champion(embedded))
    assert champion(embedded) > before
    actions = [
        entry.action
        for entry in embedded.records.audit.entries(NAME)
        if entry.at >= began and entry.details.get("release") == release.id
    ]
    moves = [one for one in actions if one not in ("release.judged", "release.announced")]
    assert moves[:3] == ["release.requested", "release.began", "release.advanced"]
    assert moves[-2:] == ["release.promoted", "release.settled"]
    for task_id in STEPS:
        # A last step that has all of its evidence at the first look is over with it.
        how_far = r"release \w+ of model \d+ is (in step|watched)"
        assert re.search(how_far, log_of(embedded, run, task_id))
        assert "errors" in log_of(embedded, run, task_id), "the evidence is a table in the log"
    assert announced(embedded, release)["end"] == "promoted"
    assert alerts_of(embedded, release) == []


@pytest.mark.slow
def test_a_person_aborts_a_release_by_the_form(embedded: Embedded) -> None:
    began, before = utc_now(), champion(embedded)
    train_another(embedded)
    embedded.wait(lambda: newest(embedded).state == "running", "release in its steps", 180)
    steer(embedded, action="pause", reason="to look at it")
    assert newest(embedded).paused
    told = embedded.command("release", "status", NAME)
    assert "paused" in told, told
    steer(embedded, action="abort", reason="the wrong day")
    run = ended(embedded, began)
    assert run.state == "success", shown(embedded, run)
    states = {task.task_id: task.state for task in embedded.api.tasks(run)}
    assert (states["begin"], states["promote"], states["watch"]) == (
        "success",
        "skipped",
        "skipped",
    )
    assert (states["announce"], "skipped" in {states[one] for one in STEPS}) == ("success", True)
    release, route = newest(embedded), embedded.records.routes.get(NAME)
    assert (release.state, release.reason) == ("aborted", "the wrong day")
    assert (route.champion, route.challenger, route.share) == (before, None, 0)
    assert release.challenger_digest not in route.held
    told = announced(embedded, release)
    assert (told["end"], told["reason"], told["causes"]) == ("aborted", "the wrong day", [])
    assert told["by"].startswith("airflow:")
    [alert] = alerts_of(embedded, release)
    assert (alert["event"], alert["details"]["by"]) == ("release.aborted", told["by"])


@pytest.mark.slow
def test_a_release_that_is_paused_before_its_first_step_waits_for_a_person(
    embedded: Embedded,
) -> None:
    began, before = utc_now(), champion(embedded)
    train_another(embedded)
    embedded.wait(lambda: newest(embedded).state == "trying", "release", 180, every=0.05)
    release = newest(embedded)
    entry = entry_of(release, "paused", utc_now(), {"reason": "to look at it"}, actor="a person")
    embedded.records.releases.pause(release, entry)

    def is_deferred() -> bool:
        runs = embedded.api.runs(f"{NAME}__deploy_model", states=("running",))
        states = {task.task_id: task.state for run in runs for task in embedded.api.tasks(run)}
        return states.get("begin") == "deferred"

    embedded.wait(is_deferred, "wait of begin, without a worker", 120)
    assert (newest(embedded).state, champion(embedded)) == ("trying", before)
    steer(embedded, action="unpause", reason="looked at")
    run = ended(embedded, began)
    assert run.state == "success", shown(embedded, run)
    assert (newest(embedded).state, champion(embedded)) == ("promoted", release.challenger)


@pytest.mark.slow
def test_a_freeze_lets_a_candidate_wait_and_thawing_starts_it(embedded: Embedded) -> None:
    until = (utc_now() + DAY).isoformat()
    steer(embedded, action="freeze", reason="christmas", until=until)
    began, before = utc_now(), champion(embedded)
    train_another(embedded)
    run = ended(embedded, began)
    assert run.state == "success", shown(embedded, run)
    states = {task.task_id: task.state for task in embedded.api.tasks(run)}
    assert (states["request"], states["begin"]) == ("success", "skipped"), states
    assert newest(embedded).state == "waiting"
    assert champion(embedded) == before
    thawed = utc_now()
    steer(embedded, action="thaw", reason="over")
    run = ended(embedded, thawed)
    assert run.state == "success", shown(embedded, run)
    assert (newest(embedded).state, champion(embedded) > before) == ("promoted", True)


@pytest.mark.slow
def test_a_release_that_is_rolled_back_fails_its_run_and_is_announced(embedded: Embedded) -> None:
    began, before = utc_now(), champion(embedded)
    train_another(embedded)
    embedded.wait(lambda: newest(embedded).state == "running", "release in its steps", 180)
    release = newest(embedded)
    embedded.records.releases.latch(NAME, release.id, "a node", "boot", "it answers NaN")
    run = ended(embedded, began)
    states = {task.task_id: task.state for task in embedded.api.tasks(run)}
    assert (run.state, states["announce"]) == ("failed", "success"), states
    assert "failed" in {states[one] for one in STEPS}, states
    route = embedded.records.routes.get(NAME)
    assert (route.champion, route.challenger) == (before, None)
    assert release.challenger_digest in route.held
    result = embedded.records.results.get(NAME, release.partition, "deploy_model")
    assert result is not None
    assert (result.state, "it answers NaN" in result.reason) == ("held", True)
    [failed] = embedded.records.audit.entries(NAME, action="task.failed", limit=1)
    assert failed.at >= began
    assert "it answers NaN" in failed.details["reason"]
    told = announced(embedded, newest(embedded))
    assert (told["end"], told["by"], "it answers NaN" in told["reason"]) == (
        "rolled_back",
        "judge",
        True,
    )
    [alert] = alerts_of(embedded, release)
    assert (alert["event"], "it answers NaN" in alert["text"]) == ("release.rolled_back", True)


@pytest.mark.slow
def test_a_candidate_that_waited_is_announced_by_the_run_that_superseded_it(
    embedded: Embedded,
) -> None:
    steer(embedded, action="freeze", reason="again", until=(utc_now() + DAY).isoformat())
    waited = list[Release]()
    for _ in range(2):
        began = utc_now()
        train_another(embedded)
        assert ended(embedded, began).state == "success"
        waited.append(newest(embedded))
    assert announced(embedded, waited[0])["end"] == "superseded"
    assert alerts_of(embedded, waited[0]) == []
    told = embedded.command("heal", NAME)
    assert "announced" not in told, told
    assert len(events_of(embedded, waited[0])) == 1
    thawed = utc_now()
    steer(embedded, action="thaw", reason="over")
    assert ended(embedded, thawed).state == "success"


def events_of(embedded: Embedded, release: Release) -> list[dict[str, Any]]:
    """Return what the events of a release's end say."""
    found = [event["extra"] for event in embedded.api.events(uri(NAME, "release_ended"))]
    return [extra for extra in found if extra["release"] == release.id]


def announced(embedded: Embedded, release: Release) -> dict[str, Any]:
    """Return what the one event of a release's end says."""
    [extra] = events_of(embedded, release)
    return extra


def alerts_of(embedded: Embedded, release: Release) -> list[dict[str, Any]]:
    """Return the alerts of a release that its address was sent."""
    return [one for one in embedded.alerts if one["details"].get("release") == release.id]


def train_another(installation: Installation) -> None:
    """Have another model trained of the newest partition, and all that follows be done."""
    path = Path(installation.settings.usecases) / f"{NAME}.yaml"
    text = path.read_text()
    rounds = int(re.findall(r"rounds: (\d+)", text)[0])
    path.write_text(text.replace(f"rounds: {rounds}", f"rounds: {rounds + 1}"))
    installation.api.trigger(
        f"{NAME}__train_model", conf={"partition": newest_key(installation, NAME)}
    )


def steer(installation: Installation, **form: str) -> None:
    """Send the form of `control_release`, and wait until it is done."""
    run = installation.api.trigger(f"{NAME}__control_release", conf=form)
    installation.wait(
        lambda: not installation.api.run(run.dag_id, run.run_id).active, f"end of {form}", 60
    )
    assert installation.api.run(run.dag_id, run.run_id).state == "success", shown(installation, run)


def ended(installation: Installation, after: datetime) -> Run:
    """Wait for the run of deploy_model that began after a moment to end; return it."""
    found: list[Run] = []

    def has_ended() -> bool:
        runs = installation.api.runs(f"{NAME}__deploy_model", states=("success", "failed"))
        found[:] = [run for run in runs if run.started is not None and run.started >= after]
        return bool(found)

    installation.wait(has_ended, "end of a release", 300)
    return found[0]


def newest(installation: Installation) -> Release:
    return installation.records.releases.of(NAME, limit=1)[0]


def champion(installation: Installation) -> int:
    version = installation.records.routes.get(NAME).champion
    assert version is not None
    return version


def log_of(installation: Installation, run: Run, task_id: str) -> str:
    [task] = [task for task in installation.api.tasks(run) if task.task_id == task_id]
    return "\n".join(installation.api.log(run, task))


def shown(installation: Installation, run: Run) -> str:
    """Return the states of a run's tasks, and the log of those that failed."""
    tasks = installation.api.tasks(run)
    logs = [log_of(installation, run, one.task_id) for one in tasks if one.state == "failed"]
    return "\n".join([str({one.task_id: one.state for one in tasks}), *logs])
