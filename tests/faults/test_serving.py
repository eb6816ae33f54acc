"""Faults of packaging and serving: kills at random points and under load, a full disk, secrets."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.config.settings import ROOT, Settings
from include.models.kinds import DEFAULT, kind_of
from include.packaging.packages import find_package
from include.pipeline import runner
from include.predictions.log import closed_segments
from include.predictions.reading import read
from tests.builders.serving import FIRST, NAME, NOW, ROW, Desk, Node, until

SECOND = "2026-03-02"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.publish({1: (NOW, ROW)})
    return made


def stage(desk: Desk, name: str) -> subprocess.Popen[bytes]:
    """Run a stage in a process of its own."""
    code = (
        "import sys; from include.pipeline import runner; from include.config.settings import "
        f"settings\nprint(runner.run({name!r}, {NAME!r}, {FIRST!r}, settings=settings(), "
        "wait=60.0).state)"
    )
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(desk.settings.home),
        "EVERGREEN_USECASES": desk.settings.usecases,
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, stdout=subprocess.PIPE
    )


def children_of(home: Path) -> list[list[str]]:
    """Return the commands of processes that work for an installation, zombies aside."""
    commands = []
    for process in psutil.process_iter(["pid", "cmdline", "environ", "status"]):
        info = process.info
        of_home = str(home) in str(info["environ"]) and info["pid"] != os.getpid()
        if of_home and info["status"] != psutil.STATUS_ZOMBIE:
            commands.append(info["cmdline"])
    return commands


@pytest.mark.slow
def test_packaging_killed_at_random_points_leaves_nothing_valid(desk: Desk) -> None:
    """There is no package without its receipt, no process left behind, and a retry makes it."""
    desk.ask(FIRST)
    model = desk.train(1)
    desk.judge(model)
    points = [random.uniform(0.3, 3.0) for _ in range(2)]
    for seconds in points:
        worker = stage(desk, "package_model")
        time.sleep(seconds)
        worker.kill()
        worker.wait()
        until(
            lambda: children_of(desk.settings.home) == [],
            what=f"end of what was started (killed at {seconds:.2f} s)",
        )
        there = find_package(desk.settings, NAME, model.model_digest, kind_of(DEFAULT))
        assert there is None or Path(there.export).is_file()
    last = stage(desk, "package_model")
    assert last.communicate(timeout=300)[0] == b"done\n"
    assert len(list((desk.settings.home / "bento" / "bentos").glob("*/*/bento.yaml"))) == 1
    assert list((desk.settings.home / "bento" / "staging").iterdir()) == []
    recorded = desk.records.models.get(NAME, 1)
    assert recorded is not None
    assert (
        recorded.bento_tag
        == desk.records.results.get(NAME, FIRST, "package_model").outputs["bento_tag"]
    )  # type: ignore[union-attr]


def test_a_node_killed_under_load_loses_no_answer(desk: Desk) -> None:
    """All that was answered is on record, after SIGKILL and after SIGTERM; a new node goes on."""
    desk.candidate(1)
    answered: set[str] = set()
    for number in (signal.SIGKILL, signal.SIGTERM):
        with desk.node() as node:
            if desk.records.routes.get(NAME).champion is None:
                desk.deploy()
            node.serves(1)
            stop = threading.Event()
            threads = [
                threading.Thread(target=ask, args=(desk.settings, stop, answered)) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            enough = len(answered) + 50
            until(lambda enough=enough: len(answered) > enough, what="answers")  # type: ignore[misc]
            code = node.stop(number)
            assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
            stop.set()
            for thread in threads:
                thread.join()
        logged = set(
            read(closed_segments(desk.settings.home, NAME)).column("request_id").to_pylist()
        )
        assert answered <= logged


def ask(settings: Settings, stop: threading.Event, answered: set[str]) -> None:
    """Ask until told to stop, and note the ids of the answers."""
    client = Node(settings)
    while not stop.is_set():
        answer = client.predict(entity=1)
        if answer.status == 200:
            answered.add(answer.body["request_id"])


def test_a_full_disk_of_the_log_is_an_error_not_a_silent_loss(desk: Desk) -> None:
    """What cannot be put on record is not answered, and the answer says so."""
    desk.candidate(1)
    limit = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); import signal; "
    )
    limit += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    desk.record_route(champion=1)
    with desk.node(setup=limit) as node:
        node.serves(1)
        answers = [node.predict(features=ROW) for _ in range(20)]
        assert {answer.status for answer in answers} == {200, 503}
        refused = next(answer for answer in answers if answer.status == 503)
        assert "prediction log" in refused.body["error"]["message"]
        node.stop(signal.SIGKILL)
    logged = read(closed_segments(desk.settings.home, NAME)).column("request_id").to_pylist()
    assert [answer.body["request_id"] for answer in answers if answer.status == 200] == logged


@pytest.fixture
def release(desk: Desk) -> Iterator[Node]:
    with desk.node() as node:
        desk.candidate(1)
        desk.deploy()
        node.serves(1)
        yield node


def test_a_release_killed_between_its_steps_goes_on(desk: Desk, release: Node) -> None:
    """The routing row is always whole, one try more ends the release, nothing is done twice."""
    desk.candidate(2, SECOND)
    code = (
        "import sys; from include.pipeline import runner; from include.config.settings import "
        "settings\nfrom dataclasses import replace; from include.deployment import deploy_model\n"
        "deploy_model.STAGE = replace(deploy_model.STAGE, effects=lambda work, outcome: {})\n"
        f"runner.run('deploy_model', {NAME!r}, {SECOND!r}, settings=settings(), wait=60.0)"
    )
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(desk.settings.home),
        "EVERGREEN_USECASES": desk.settings.usecases,
    }
    for seconds in (0.5, 0.9, 1.4):
        worker = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT)
        time.sleep(seconds)
        worker.kill()
        worker.wait()
        route = desk.records.routes.get(NAME)
        assert (route.champion, route.previous) in {(1, None), (2, 1)}
        assert release.predict(entity=1).status == 200
    assert desk.deploy(SECOND).outputs["champion"] == 2
    release.serves(2)
    actions = [
        entry.action
        for entry in desk.records.audit.entries(NAME, subject="2")
        if entry.action.startswith("release.")
    ]
    assert actions == ["release.requested", "release.promoted"]
    assert desk.records.audit.verify() is None


def test_secrets_stay_out_of_logs_and_answers(desk: Desk, release: Node) -> None:
    """The token is in its file alone."""
    token = desk.settings.node_secret.get_secret_value()
    order = {"reason": "x", "version": 1}
    release.post(f"/v1/{NAME}/rollback", json=order, headers=release.token)
    release.post(
        f"/v1/{NAME}/rollback", json={"reason": "x"}, headers={"authorization": f"Bearer {token}x"}
    )
    assert (desk.settings.home / "secrets" / "node_token").stat().st_mode & 0o077 == 0
    release.stop()
    for path in desk.settings.home.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            assert token.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_kill_between_route_and_aliases_is_repaired_by_the_next_run(desk: Desk) -> None:
    """The routing row is the truth; MLflow's aliases follow it, whatever came in between."""
    from include.models import mlflow_registry

    desk.record_route(champion=None)
    model = desk.candidate(1)
    registered = register(desk, model.bundle, model.model_digest)
    assert registered == 1
    desk.record_route(champion=1)  # as if killed right after the transaction
    assert mlflow_registry.aliases(desk.settings, NAME) == {}
    with desk.node():
        report = runner.run("deploy_model", NAME, FIRST, settings=desk.settings)
        assert (report.state, report.effects["aliases"]) == ("done", {"champion": 1})
        assert mlflow_registry.aliases(desk.settings, NAME) == {"champion": 1}
        again = runner.run("deploy_model", NAME, FIRST, settings=desk.settings)
        assert again.effects["aliases"] == {}


def register(desk: Desk, bundle: str, digest: str) -> int:
    """Register a bundle in MLflow."""
    from include.models.mlflow_registry import TrainingRun
    from include.models.mlflow_registry import register as register_model

    training = TrainingRun(
        use_case=NAME,
        key=FIRST,
        as_of=f"{SECOND}T00:00:00+00:00",
        mode="live",
        model_digest=digest,
        folder=Path(bundle),
        params={},
        metrics={},
        manifest={},
    )
    return register_model(desk.settings, training).version
