"""The supervisor, with the serving node as its one real child: restart, stop, stale state, a
second one.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from include.config.settings import ROOT, Settings
from include.errors import Busy
from include.installation import child, services, supervisor
from include.installation.lock import find_holder
from include.installation.supervisor import Supervisor, stop
from include.processes import Born
from tests.builders.ports import free_ports

SERVE = """
import sys
from include.config.settings import settings
from include.installation.supervisor import Stopped, Supervisor
try:
    with Supervisor(settings(), say=lambda text: print(text, flush=True),
        services=("node",)) as supervisor:
        supervisor.start()
        supervisor.wait_healthy()
        print("READY", flush=True)
        supervisor.hold()
except Stopped:
    pass
print("ENDED", flush=True)
"""


class Outside:
    """A supervisor in a process of its own, as `make run` would be."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.log = settings, settings.home / "outside.log"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN_")
        }
        environment |= {
            "EVERGREEN_HOME": str(settings.home),
            "EVERGREEN_USECASES": settings.usecases,
            "EVERGREEN_NODE_PORT": str(settings.node_port),
            "EVERGREEN_AIRFLOW_PORT": str(settings.airflow_port),
            "EVERGREEN_MLFLOW_PORT": str(settings.mlflow_port),
            "PYTHONPATH": str(ROOT),
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE], env=environment, stdout=output, stderr=output
            )

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    @property
    def node(self) -> int:
        """The process id of the node."""
        body = json.loads((self.settings.home / "run" / "supervisor.json").read_text())
        return int(body["sessions"][-1]["pid"])


@pytest.fixture
def small(tmp_path: Path) -> Settings:
    (tmp_path / "usecases").mkdir()
    ports = free_ports(3)
    return Settings(
        home=tmp_path,
        usecases=str(tmp_path / "usecases"),
        airflow_port=ports[0],
        mlflow_port=ports[1],
        node_port=ports[2],
    )


@pytest.fixture
def outside(small: Settings) -> Iterator[Outside]:
    started = Outside(small)
    wait_until(lambda: started.said("READY"), "the node comes up", started.log)
    yield started
    if started.process.poll() is None:
        started.process.terminate()
    started.process.wait(timeout=120)


def test_a_dead_node_is_started_again_and_stop_ends_all(outside: Outside) -> None:
    first = outside.node
    os.kill(first, signal.SIGKILL)
    wait_until(
        lambda: outside.node != first and answers(outside.settings.node_port),
        "the node is back",
        outside.log,
    )
    second = outside.node
    assert outside.said("node ended with code -9")

    with (
        pytest.raises(Busy, match=f"in use by process {outside.process.pid}.*EVERGREEN_HOME"),
        Supervisor(outside.settings),
    ):
        pass

    assert "and all that it had started" in stop(outside.settings, timeout=120)
    assert outside.process.wait(timeout=60) == 0
    assert outside.said("ENDED")
    assert not alive(second)
    assert find_holder(outside.settings) is None
    assert stop(outside.settings).startswith("nothing runs")


def test_a_request_while_the_node_is_away_waits_for_the_next_one(outside: Outside) -> None:
    first, url = outside.node, f"http://127.0.0.1:{outside.settings.node_port}/health"
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not alive(first), "its end", outside.log)
    for _ in range(3):
        assert httpx.get(url, timeout=60, trust_env=False).status_code == 200
    assert outside.node != first
    stop(outside.settings, timeout=120)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=60, trust_env=False)


@pytest.mark.slow
def test_a_node_that_hangs_is_started_again(outside: Outside) -> None:
    first = outside.node
    os.kill(first, signal.SIGSTOP)
    wait_until(
        lambda: outside.node != first and answers(outside.settings.node_port),
        "the node is back",
        outside.log,
    )
    assert outside.said("node has not answered for")
    assert not alive(first)


@pytest.mark.slow
def test_nobody_listens_and_the_disk_is_full_and_the_node_is_still_started_again(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said fails as after `make run | head`; what is written, as on a full disk."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        raise BrokenPipeError

    full = [False]
    real = supervisor.write_text

    def write(path: Path, text: str) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, text)

    monkeypatch.setattr(supervisor, "write_text", write)
    with Supervisor(small, say=say, services=("node",)) as running:
        running.start()
        running.wait_healthy()
        (node,) = running._children
        for full[0] in (True, False):
            assert node.born is not None
            before = node.born
            os.kill(before.pid, signal.SIGKILL)
            wait_until(
                lambda before=before: node.born != before and answers(small.node_port),  # type: ignore[misc]
                "the node is back",
                node.log,
            )
            running.check()
        assert running.problems["node: OSError"] >= 1
        assert len([line for line in said if "No space left" in line]) == 1, "it is said once"
        state = small.home / "run" / "supervisor.json"
        wait_until(lambda: str(node.born.pid) in state.read_text(), "its session", state)  # type: ignore[union-attr]


def test_pages_that_die_again_and_again_leave_the_rest_alone(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "MAX_RESTARTS", 2)  # the pauses before six deaths are a minute
    monkeypatch.setattr(services, "_mlflow_command", lambda settings: [sys.executable, "-c", "1/0"])
    said: list[str] = []
    with Supervisor(small, say=said.append, services=("node", "mlflow")) as running:
        running.start()
        running.wait_healthy()
        mlflow = next(child for child in running._children if child.name == "mlflow")
        assert mlflow.given_up
        running.check()
        wait_until(lambda: answers(small.node_port), "an answer of the node", mlflow.log)
    assert (
        len([line for line in said if "mlflow died 3 times and is not started again" in line]) == 1
    )


def test_what_a_killed_supervisor_left_behind_is_ended_by_the_next(
    outside: Outside, small: Settings
) -> None:
    orphan = outside.node
    outside.process.kill()
    outside.process.wait()
    assert alive(orphan)
    wait_until(lambda: answers(small.node_port), "an answer of the orphan", outside.log)
    url = f"http://127.0.0.1:{small.node_port}/nothing"
    for _ in range(20):  # nobody reads any more what it prints
        assert httpx.get(url, timeout=60, trust_env=False).status_code == 404
        httpx.get(url, headers={"host": "elsewhere"}, timeout=60, trust_env=False)
    assert alive(orphan)
    assert find_holder(small) is None, "a lock of a dead process holds nobody up"

    said: list[str] = []
    with Supervisor(small, say=said.append, services=("node",)):
        assert not alive(orphan)
    assert any("had left behind" in line for line in said)


def test_ctrl_c_ends_all(outside: Outside) -> None:
    node = outside.node
    outside.process.send_signal(signal.SIGINT)
    assert outside.process.wait(timeout=120) == 0
    assert not alive(node)
    assert not (outside.settings.home / "run" / "supervisor.json").exists()


def test_stale_state_of_another_boot_names_nobody(small: Settings) -> None:
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    try:
        born = Born.of(bystander.pid)
        state = small.home / "run" / "supervisor.json"
        state.parent.mkdir()
        session = {"pid": born.pid, "created": born.created}
        state.write_text(json.dumps({"boot": "another", "supervisor": {}, "sessions": [session]}))
        assert stop(small).startswith("nothing runs")
        assert bystander.poll() is None
        assert not state.exists()
    finally:
        bystander.kill()
        bystander.wait()


def wait_until(there: Callable[[], bool], what: str, log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if there():
                return
        except (OSError, ValueError):
            pass
        assert time.monotonic() < deadline, (
            f"{what}: not within {seconds} s; the log says: {log.read_text()}"
        )
        time.sleep(0.1)


def answers(port: int) -> bool:
    """Tell whether a node answers; its port alone is open also while there is none."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
