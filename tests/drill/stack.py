"""A running system for the drill: records, store, two nodes and a judge, each a process to break.

Records are a PostgreSQL and online features a Redis of its own, where their programs are installed;
else SQLite, and the cases that stop them are left out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.clock import utc_now, wait_for
from include.config.settings import ROOT
from include.config.use_case_file import find
from include.deployment.release_plan import ReleasePlan
from include.records.records import AuditEntry, Release
from tests.builders import postgres_server, redis_server
from tests.builders.ports import free_ports
from tests.builders.serving import NAME, NOW, Node, until
from tests.builders.sick import rows_of
from tests.drill.clinic import PLAN, Clinic
from tests.drill.traffic import ENTITIES, Traffic

ENDED = ("promoted", "rolled_back", "aborted", "superseded")
FIRST_DAY = date(2026, 2, 1)


class Stack:
    """The running system; `version` is the newest model, `key` its partition."""

    def __init__(self, folder: Path, services: Mapping[str, Any], *, rate: float) -> None:
        # A case that stops one says so, and is left out where it is not there.
        self.records_server: Any = services.get("records")
        self.store: Any = services.get("store")
        urls = {}
        if self.records_server is not None:
            urls["records_url"] = self.records_server.url()
        if self.store is not None:
            urls["online_url"] = self.store.url
        self.desk = Clinic(folder / "home", **urls)
        self.ports = free_ports(2)
        settings = self.desk.settings
        self.nodes = [Node(settings.model_copy(update={"node_port": port})) for port in self.ports]
        self.traffic = Traffic(self.ports, rate=rate)
        self.judge: subprocess.Popen[bytes] | None = None
        self.version = 0
        self.harmed_at = 0.0  # of the case that is played, monotonic seconds

    # parts that run

    @contextlib.contextmanager
    def running(self) -> Iterator[Stack]:
        """Run both nodes, the judge and the traffic until the block ends; model 1 is not there."""
        self.publish()
        try:
            for node in self.nodes:
                node.start()
            self.start_judge()
            yield self
        finally:
            self.kill_judge()
            for node in self.nodes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.stop(signal.SIGKILL)

    def harm(self) -> None:
        """Note that the harm of a case begins now: its end is counted from here."""
        self.harmed_at = time.monotonic()

    def publish(self) -> None:
        """Put the features of all entities online."""
        self.desk.publish({entity: (NOW, row) for entity, row in enumerate(rows_of(ENTITIES))})

    def start_judge(self) -> None:
        """Start what looks after releases, in a process of its own."""
        settings = self.desk.settings
        environment = {
            **os.environ,
            "EVERGREEN_HOME": str(settings.home),
            "EVERGREEN_USECASES": settings.usecases,
            "EVERGREEN_ONLINE_URL": settings.online_url.get_secret_value(),
            "EVERGREEN_RECORDS_URL": settings.records_url.get_secret_value(),
        }
        with (settings.home / "judge.log").open("ab") as log:
            self.judge = subprocess.Popen(
                [sys.executable, "-m", "tests.drill.judge"],
                env=environment, cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def kill_judge(self) -> None:
        """Kill it, in whatever it does."""
        if self.judge is not None:
            self.judge.kill()
            self.judge.wait()
            self.judge = None

    @contextlib.contextmanager
    def without_judge(self) -> Iterator[None]:
        """Kill it, and start it again when the block ends."""
        self.kill_judge()
        try:
            yield
        finally:
            self.start_judge()

    def find_lane(self, node: int, version: int) -> psutil.Process | None:
        """Return the process in which a node has a model, None where it has none now."""
        process = self.nodes[node].process
        assert process is not None, f"node {node} is down"
        bundle = str(self.desk.settings.home / "models" / str(version))
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if len(words) > 3 and words[1].endswith("/lane.py") and words[3] == bundle:
                    return child
        return None

    def lane(self, node: int, version: int) -> psutil.Process:
        """Wait for the process in which a node has a model, and return it."""
        lane = wait_for(lambda: self.find_lane(node, version), seconds=20, every=0.1)
        assert lane is not None, f"node {node} has no process of model {version}"
        return lane

    def lanes(self, version: int) -> list[psutil.Process]:
        """Return the processes in which both nodes have a model."""
        return [self.lane(node, version) for node in range(len(self.nodes))]

    def tidy_up(self) -> None:
        """Leave the system as the next case expects it, whatever became of this one."""
        for patient in self.desk.patients.values():
            patient.cure()
        for server in (self.records_server, self.store):
            if server is not None and not is_listening(server.port):
                server.start()
        for node in self.nodes:
            if node.process is None or node.process.poll() is not None:
                node.start()
        if self.judge is None or self.judge.poll() is not None:
            self.start_judge()
        releases = self.desk.records.releases
        entry = self.entry("release.aborted", str(self.version), "the next case")
        for release in (releases.waiting(NAME), releases.running(NAME)):
            if release is not None:
                releases.abort(release, "the next case", entry)
        self.until_quiet()

    # what is asked of it

    def change_plan(self, **changes: str) -> None:
        """Have the next release go by another plan; values as in the YAML file."""
        self.desk.plan = {**PLAN, **changes}
        self.desk.write_use_case()
        self.desk.apply()

    def candidate(self, *, shift: float = 0.0, **changes: Any) -> int:
        """Record the next candidate, judged and packaged; return its version."""
        self.version += 1
        self.desk.shift = shift
        self.desk.candidate(self.version, self.key, **changes)
        return self.version

    def release(self, *, shift: float = 0.0, **changes: Any) -> int:
        """Start the release of the next candidate; return its version."""
        version = self.candidate(shift=shift, **changes)
        self.deploy()
        return version

    def deploy(self) -> str:
        """Ask for the release of the newest candidate; return how the stage ended."""
        return self.desk.deploy(self.key).state

    def judge_again(self) -> None:
        """Judge the newest candidate against the champion of now."""
        model = self.desk.records.models.get(NAME, self.version)
        assert model is not None
        self.desk.judge(model, again=True)

    def answered_by(self, node: Node, version: int) -> set[int]:
        """Return the entities that a node answers by a version."""
        found = set[int]()
        # A hundred at a time: a batch has two seconds, and each row of the challenger's is a way to
        # its process and back.
        for first in range(0, ENTITIES, 100):
            asked = [{"entity": entity} for entity in range(first, first + 100)]
            answer = node.post(f"/v1/{NAME}/batch", json={"rows": asked})
            assert answer.status == 200, answer
            refused = [one for one in answer.body["results"] if "error" in one]
            assert not refused, f"{len(refused)} rows are refused, as {refused[0]}"
            found |= {
                one["entity"] for one in answer.body["results"] if one["model_version"] == version
            }
        return found

    def request_by_hand(self) -> None:
        """Write the newest candidate's release into the records, as whoever passes by the stage."""
        records, case = self.desk.records, find(NAME, self.desk.settings.usecase_dirs)
        model = records.models.get(NAME, self.version)
        assert model is not None
        route = records.routes.get(NAME)
        records.releases.request(
            NAME,
            partition=self.key,
            model=model,
            opponent=route.champion,
            judged_generation=route.generation,
            plan=ReleasePlan.of(case).plain(),
            description=None,
            entry=self.entry("release.requested", str(self.version), "by hand"),
        )

    @property
    def key(self) -> str:
        """The partition of the newest model: a day a version."""
        return f"{FIRST_DAY + timedelta(days=self.version)}"

    @property
    def newest(self) -> Release | None:
        """The release of the newest model, None until there is one."""
        found = self.desk.records.releases.of(NAME)
        return next((release for release in found if release.challenger == self.version), None)

    @property
    def under_way(self) -> Release:
        """The release under way."""
        release = self.desk.records.releases.running(NAME)
        assert release is not None, "no release is under way"
        return release

    def until_without(self, version: int) -> None:
        """Wait until no node answers by a version any more."""

        def is_quiet() -> bool:
            self.traffic.answered_by(version)
            time.sleep(1.5)
            return self.traffic.answered_by(version) == 0

        until(is_quiet, what=f"traffic without model {version}", seconds=40)

    def until_step(self, step: int, *, seconds: float = 60.0) -> None:
        """Wait until the newest release is in a step, and both nodes follow it."""

        def is_there() -> bool:
            release = self.newest
            assert release is None or release.state not in ENDED, (
                f"it ended as {release.state} ({release.reason}) before step {step}"
            )
            return release is not None and release.state == "running" and release.step >= step

        until(is_there, what=f"step {step}", seconds=seconds)
        time.sleep(1.0)

    def until_quiet(self, *, seconds: float = 60.0) -> None:
        """Wait until no release is on its way, or watched."""
        releases = self.desk.records.releases

        def is_quiet() -> bool:
            return releases.running(NAME) is None and releases.watched(NAME) is None

        until(is_quiet, what="end of the watch", seconds=seconds)

    def until_ended(self, *, seconds: float = 120.0) -> str:
        """Wait until the newest release has ended, or only needs watching; return its state."""

        def state() -> str | None:
            release = self.newest
            settled = release is not None and release.state in (*ENDED, "watched")
            return release.state if settled and release is not None else None

        ended = wait_for(state, seconds=seconds, every=0.1)
        return ended or f"still {self.newest.state if self.newest else 'nothing'}"

    def entry(self, action: str, subject: str, reason: str) -> AuditEntry:
        """Return an audit row of the drill's own hand."""
        return AuditEntry(action, NAME, subject, "drill", {"reason": reason}, utc_now())

    @property
    def answering(self) -> list[int | None]:
        """The version that each node answers with."""
        return [node.health.get("model_version") for node in self.nodes]


def is_listening(port: int) -> bool:
    """Tell whether somebody accepts connections at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def services(folder: Path) -> Iterator[dict[str, Any]]:
    """Run the servers that a stack needs, as far as their programs are installed."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Any] = {}
        with contextlib.suppress(pytest.skip.Exception):
            found["records"] = stack.enter_context(postgres_server.postgres_server())
        if shutil.which("redis-server"):
            found["store"] = stack.enter_context(
                redis_server.own_server(folder, "--maxmemory-policy", "noeviction")
            )
        yield found
