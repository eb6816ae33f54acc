"""Load a supervised node for minutes or hours, kill it at random, and see what does not stay flat.

    make soak [MINUTES=60]

In the first half the node is killed at random; in both, models are swapped and rolled back, an
online file is replaced, and its log is filled with refusals. Memory, open files, threads, disk
and latency are judged in the second half, in which one process lives. Exit code 1: something grew,
or more was lost than the requests that a killed process had begun to read.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from include.clock import utc_now
from include.config.settings import ROOT, Settings
from include.errors import EvergreenError
from include.installation.housekeeping import measure
from include.records.records import AuditEntry
from tests.builders.ports import free_ports
from tests.builders.serving import NAME, NOW, ROW, Desk, Node, until

THREADS = 4
PAUSE = 0.02  # seconds between two requests of a thread: a machine that is shared stays usable
SAMPLE_SECONDS = 5.0
SUPERVISE = """
from include.config.settings import settings
from include.installation.supervisor import Stopped, Supervisor
try:
    with Supervisor(settings(), say=print, services=("node",)) as supervisor:
        supervisor.start()
        supervisor.hold()
except Stopped:
    pass
"""


@dataclass
class Load:
    """What the threads that ask have seen; latencies are in seconds."""

    stop: threading.Event = field(default_factory=threading.Event)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # no answer: a killed process had read it
    failed: list[str] = field(default_factory=list)  # an answer that is none

    def ask(self, settings: Settings) -> None:
        """Ask until told to stop, by entity and by row in turn, on one connection."""
        bodies = [json.dumps(body).encode() for body in ({"entity": 1}, {"features": ROW})]
        headers = {"content-type": "application/json"}
        client = http.client.HTTPConnection("127.0.0.1", settings.node_port, timeout=30)
        count = 0
        while not self.stop.wait(PAUSE):
            count += 1
            began = time.monotonic()
            try:
                client.request("POST", f"/v1/{NAME}/predict", bodies[count % 2], headers)
                response = client.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                client.close()
                continue
            if response.status == 200:
                self.latencies.append((began, time.monotonic() - began))
            else:
                self.failed.append(f"{response.status} {content[:200]!r}")


@dataclass
class Sample:
    """The node's process tree and the home folder at one moment."""

    at: float
    memory: int
    files: int
    threads: int
    disk: int


def main(arguments: Sequence[str]) -> int:
    """Run, print what was measured, and return 0 if all of it stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=60.0)
    minutes = parser.parse_args(arguments).minutes
    with tempfile.TemporaryDirectory(prefix="evergreen-soak-") as folder:
        return _soak(Path(folder), minutes * 60)


def _soak(home: Path, seconds: float) -> int:
    desk = Desk(home)
    ports = free_ports(3)
    desk.settings = desk.settings.model_copy(
        update={
            "airflow_port": ports[0],
            "mlflow_port": ports[1],
            "node_port": ports[2],
            "log_megabytes": 0.2,
        }
    )
    desk.publish({1: (NOW, ROW)})
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    load, samples, kills = Load(), list[Sample](), 0
    chance = random.Random()
    with _supervised(desk.settings) as state:
        node = Node(desk.settings)
        until(lambda: node.get("/health").status == 200, what="a node", seconds=60)
        node.serves(2)
        threads = [threading.Thread(target=load.ask, args=(desk.settings,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        next_kill, next_change = began + 5, began + 2
        while (now := time.monotonic()) < began + seconds:
            if now < began + seconds / 2 and now >= next_kill:
                os.kill(_node_id(state), signal.SIGKILL)
                kills += 1
                next_kill = now + chance.uniform(0.02, 0.1) * seconds
            if now >= next_change:
                _change(desk, node, chance)
                next_change = now + chance.uniform(1, 10)
            with contextlib.suppress(psutil.Error, OSError, ValueError):
                samples.append(_sample(state, home, now))
            time.sleep(SAMPLE_SECONDS)
        load.stop.set()
        for thread in threads:
            thread.join()
    return _judge(load, samples, kills, began + seconds / 2)


@contextlib.contextmanager
def _supervised(settings: Settings) -> Iterator[Path]:
    """Run a supervisor with a node; give the file that names its processes."""
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(settings.home),
        "EVERGREEN_USECASES": settings.usecases,
        "EVERGREEN_NODE_PORT": str(settings.node_port),
        "EVERGREEN_AIRFLOW_PORT": str(settings.airflow_port),
        "EVERGREEN_MLFLOW_PORT": str(settings.mlflow_port),
        "EVERGREEN_LOG_MEGABYTES": str(settings.log_megabytes),
    }
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        yield settings.home / "run" / "supervisor.json"
    finally:
        supervisor.terminate()
        supervisor.wait(timeout=60)


def _node_id(state: Path) -> int:
    return int(json.loads(state.read_text())["sessions"][-1]["pid"])


def _change(desk: Desk, node: Node, chance: random.Random) -> None:
    """Do one of the things that a day brings; what a kill came in between of is passed over."""
    what = chance.choice(["swap", "roll back", "publish", "refused"])
    with contextlib.suppress(EvergreenError, OSError):
        route = desk.records.routes.get(NAME)
        other = 3 - (route.champion or 1)
        if what == "swap" or (what == "roll back" and route.previous is None):
            for digest in route.held:
                entry = AuditEntry("test", NAME, "hold", "soak", {}, utc_now())
                desk.records.routes.lift(NAME, digest, entry=entry)
            desk.record_route(champion=other, previous=route.champion)
        elif what == "roll back":
            order = {"reason": "soak", "version": route.champion}
            node.post(f"/v1/{NAME}/rollback", json=order, headers=node.token)
        elif what == "publish":
            desk.publish({1: (NOW, ROW)})
        else:
            for _ in range(50):
                node.post(f"/v1/{NAME}/reload", headers={"authorization": "Bearer no"})


def _sample(state: Path, home: Path, now: float) -> Sample:
    process = psutil.Process(_node_id(state))
    tree = [process, *process.children(recursive=True)]
    sizes = measure(home)
    # What was answered is on record: that grows by design, and has a bound of its own.
    grows = sum(sizes.get(name, 0) for name in ("free", "predictions", "lake", "records.db"))
    return Sample(
        now,
        sum(one.memory_info().rss for one in tree),
        sum(one.num_fds() for one in tree),
        sum(one.num_threads() for one in tree),
        sum(sizes.values()) - grows,
    )


def _judge(load: Load, samples: Sequence[Sample], kills: int, calm: float) -> int:
    """Print what was measured; return 1 if something was lost or did not stay flat."""
    bad = False
    # Of each kill a connection loses one: what was read of it, or what was sent on it next.
    most = kills * THREADS
    print(
        f"{len(load.latencies)} answers, {kills} kills, {len(load.lost)} of {most} lost with them"
    )
    if load.failed or len(load.lost) > most:
        bad = True
        print(f"FAILED: {len(load.failed)} answers that are none: {Counter(load.failed)}")
        print(f"        lost: {Counter(load.lost)}")
    later = [sample for sample in samples if sample.at >= calm]
    rows = {
        "memory, MB": ([one.memory / 1e6 for one in later], 1.1, 10.0),
        "open files": ([float(one.files) for one in later], 1.0, 8.0),
        "threads": ([float(one.threads) for one in later], 1.0, 4.0),
        "disk without answers, MB": ([one.disk / 1e6 for one in later], 1.1, 1.0),
    }
    latencies = [(at, took * 1e3) for at, took in load.latencies if at >= calm]
    minutes: dict[int, list[float]] = {}
    for at, took in latencies:
        minutes.setdefault(int((at - calm) // 30), []).append(took)
    halves = [sorted(taken) for _, taken in sorted(minutes.items()) if len(taken) >= 100]
    rows["latency p50, ms"] = ([median(taken) for taken in halves], 1.5, 2.0)
    rows["latency p99, ms"] = ([taken[int(len(taken) * 0.99)] for taken in halves], 2.0, 40.0)
    for name, (values, factor, room) in rows.items():
        if len(values) < 4:
            print(f"{name:<26} too few samples; run it for longer")
            bad = True
            continue
        third = max(1, len(values) // 3)
        first, last = median(values[:third]), median(values[-third:])
        flat = last <= first * factor + room
        bad = bad or not flat
        verdict = "flat" if flat else f"GROWS (above {first * factor + room:.1f})"
        print(f"{name:<26} {first:9.1f} -> {last:9.1f}  most {max(values):9.1f}  {verdict}")
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
