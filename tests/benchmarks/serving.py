"""What a request costs at a really started node, beside a bare application and other servers.

Each round asks all contenders in turn with each number of connections, the floor among them: ratios
are to the floor of the same round, and the figures are the medians of the rounds.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis

from include.clock import wait_for
from include.config.no_telemetry import QUIET
from include.config.settings import ROOT
from include.features.online_stores import open_store
from include.models.kinds import kind_of
from include.packaging.bento_build import end_users
from tests.benchmarks.serving_desk import ENTITIES, NAMES, WideDesk, json_of, named, rows
from tests.benchmarks.serving_load import Load, drive, has_wrk, machine_is_busy
from tests.builders.ports import free_port
from tests.builders.serving import NAME

CONNECTIONS = (1, 64)
FLOOR = "bare, row"
# Of answers a second, to the floor's; of latencies, at most; p99 in ms with the most connections.
LIMITS = {
    "node, row": {"rate": 0.75, "p50": 1.3, "p99": 2.0},
    "node, entity": {"rate": 0.6},
}
LIMIT_P99_MS = 80.0
# A second node reads its features from here; the keys of each installation are its own.
REDIS = os.environ.get("EVERGREEN_BENCH_REDIS", "redis://127.0.0.1:6379/0")


@dataclass(frozen=True)
class Server:
    """A server that runs: its process, where it is asked, and with what."""

    name: str
    pid: int
    port: int
    path: str
    bodies: Sequence[bytes]


def measure(
    folder: Path, *, rounds: int, seconds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure and return the figures by number of connections and contender."""
    folder.mkdir(parents=True, exist_ok=True)
    if not has_wrk():
        say(
            "wrk is not installed (apt-get install wrk): a generator of ours asks instead, which "
            "is slower than the servers; only the CPU us a request say something"
        )
    busy = machine_is_busy()
    desk = WideDesk(folder / "home")
    desk.publish_rows()
    figures: dict[str, dict[str, list[Load]]] = {str(c): {} for c in CONNECTIONS}
    with contextlib.ExitStack() as running:
        model = desk.candidate(1)
        tag = desk.package_for_real(model)
        node = running.enter_context(desk.node())
        desk.deploy()
        node.serves(1)
        assert node.process is not None
        port, path = desk.settings.node_port, f"/v1/{NAME}/predict"
        by_row = [json_of(features=named(row)) for row in rows(64)]
        by_entity = [json_of(entity=number) for number in range(0, ENTITIES, 7)]
        contenders = [
            running.enter_context(bare_server(Path(model.bundle) / "model.txt", by_row)),
            Server("node, row", node.process.pid, port, path, by_row),
            Server("node, entity", node.process.pid, port, path, by_entity),
        ]
        if (problem := _redis_problem()) is None:
            contenders.append(running.enter_context(_with_redis(folder, by_entity)))
        else:
            say(f"Redis as online store is left out: {problem}")
        for contender in contenders:
            _answers(contender)
            load_of(contender, 8, 1, folder)  # warm
        for number in range(rounds):
            # The order turns round, so that none always follows the same other one.
            for one in contenders[:: 1 if number % 2 == 0 else -1]:
                for count in CONNECTIONS:
                    figures[str(count)].setdefault(one.name, []).append(
                        load_of(one, count, seconds, folder)
                    )
            say(f"  serving, round {number + 1} of {rounds}")
        for peer in (_bentoml(desk, tag, by_row), _mlflow(folder, model.bundle)):
            with peer as one:
                say(f"  {one.name}, once")
                _answers(one)
                for count in CONNECTIONS:
                    figures[str(count)][one.name] = [load_of(one, count, seconds, folder)]
    return _judged(figures, busy)


def table(found: dict[str, Any]) -> list[str]:
    """Return the figures as lines."""
    lines = [
        "",
        f"serving, {len(NAMES)} features, 100 trees x 31 leaves; over the bare application of the "
        "same round"
        + ("" if found["wrk"] else "; WITHOUT wrk: of the columns only CPU us says something"),
        f"  {'connections':>11} {'':<14} {'answers/s':>10} {'p50 ms':>8} {'p99 ms':>8} "
        f"{'CPU us':>8} {'failed':>6}   {'rate':>5} {'p50':>5} {'p99':>5} {'CPU':>5}",
    ]
    for count, contenders in found["connections"].items():
        lines += [
            f"  {count:>11} {name:<14} {one['rate']:10.0f} {one['p50']:8.3f} {one['p99']:8.3f} "
            f"{one['cpu']:8.1f} {one['failed']:6}   {one['ratios']['rate']:5.2f} "
            f"{one['ratios']['p50']:5.2f} {one['ratios']['p99']:5.2f} {one['ratios']['cpu']:5.2f}"
            for name, one in contenders.items()
        ]
    if found["busy"]:
        lines.append(
            "  others used the machine when this began: latencies say more of them than of the "
            f"servers, and p99 below {LIMIT_P99_MS:.0f} ms was not asked"
        )
    lines += [f"  {text}" for text in found["exceeded"]] or ["  all limits are kept: ok"]
    return lines


def _judged(figures: dict[str, dict[str, list[Load]]], busy: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"connections": {}, "wrk": has_wrk(), "busy": busy, "exceeded": []}
    for count, contenders in figures.items():
        floor = contenders[FLOOR]
        told = found["connections"][count] = {}
        for name, loads in contenders.items():
            # A peer is asked once, after the rounds.
            beside = floor if len(loads) == len(floor) else floor[-1:]
            told[name] = {
                what: statistics.median(getattr(one, what) for one in loads)
                for what in ("rate", "p50", "p99", "cpu")
            } | {
                "failed": sum(one.failed for one in loads),
                "longest": max(one.longest for one in loads),
                "ratios": {
                    what: statistics.median(
                        getattr(one, what) / getattr(bare, what)
                        for one, bare in zip(loads, beside, strict=True)
                    )
                    for what in ("rate", "p50", "p99", "cpu")
                },
            }
        for name, limits in LIMITS.items():
            found["exceeded"] += _exceeded(count, name, told[name], limits, busy)
    found["passed"] = not found["exceeded"]
    return found


def _exceeded(
    count: str, name: str, one: dict[str, Any], limits: dict[str, float], busy: bool
) -> Iterator[str]:
    for what, limit in limits.items() if has_wrk() else ():
        ratio = one["ratios"][what]
        if ratio < limit if what == "rate" else ratio > limit:
            yield f"{name}, {count} connections: {what} {ratio:.2f}, limit {limit} EXCEEDED"
    if has_wrk() and not busy and one["p99"] > LIMIT_P99_MS:
        yield f"{name}, {count} connections: p99 {one['p99']:.1f} ms, limit {LIMIT_P99_MS} EXCEEDED"
    if one["failed"]:
        yield f"{name}, {count} connections: {one['failed']} requests failed EXCEEDED"


def load_of(one: Server, connections: int, seconds: int, folder: Path) -> Load:
    """Ask a server for so long."""
    return drive(
        one.pid,
        one.port,
        one.path,
        one.bodies,
        connections=connections,
        seconds=seconds,
        folder=folder,
    )


@contextlib.contextmanager
def _process(
    name: str,
    command: list[str],
    port: int,
    path: str,
    bodies: Sequence[bytes],
    *,
    folder: Path,
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    log = folder / f"{name.split(',', maxsplit=1)[0].replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **QUIET, **(environment or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(name, process.pid, port, path, bodies)
    try:
        if not wait_for(lambda: _is_up(server, process), seconds=90, every=0.2):
            raise RuntimeError(f"{name} does not answer; its log is\n{log.read_text()[-3000:]}")
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()


def bare_server(model: Path, bodies: Sequence[bytes]) -> contextlib.AbstractContextManager[Server]:
    """Run the floor: a bare application with the model of this file."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.serving_floor", str(port), str(model)]
    return _process(
        FLOOR,
        [*command, *NAMES],
        port,
        "/",
        bodies,
        folder=model.parent.parent,
        environment={"PYTHONPATH": str(ROOT)},
    )


def _redis_problem() -> str | None:
    """Return why Redis cannot be asked."""
    try:
        with redis.Redis.from_url(REDIS, socket_timeout=3) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return f"none answers at {REDIS}; set EVERGREEN_BENCH_REDIS ({error})"
    return None


@contextlib.contextmanager
def _with_redis(folder: Path, bodies: Sequence[bytes]) -> Iterator[Server]:
    """Run a node of its own whose features are in Redis."""
    desk = WideDesk(folder / "redis", online_url=REDIS)
    store = open_store(desk.settings, NAME)
    try:
        desk.publish_rows()
        desk.candidate(1)
        with desk.node() as node:
            desk.deploy()
            node.serves(1)
            assert node.process is not None
            path = f"/v1/{NAME}/predict"
            yield Server("node, Redis", node.process.pid, desk.settings.node_port, path, bodies)
    finally:
        store.remove()
        store.close()


@contextlib.contextmanager
def _bentoml(desk: WideDesk, tag: str, bodies: Sequence[bytes]) -> Iterator[Server]:
    """Serve the very Bento that was packaged, by BentoML itself."""
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(port)]
    home = desk.bento_home
    environment = {"BENTOML_HOME": str(home), "SPT_NOENV": "1", "PYTHONPATH": ""}
    try:
        with _process(
            "bentoml serve",
            [*command, "--host", "127.0.0.1"],
            port,
            "/predict",
            bodies,
            folder=desk.settings.home,
            environment=environment,
        ) as server:
            yield server
    finally:
        end_users(home)  # its workers lead sessions of their own


@contextlib.contextmanager
def _mlflow(folder: Path, bundle: str) -> Iterator[Server]:
    """Serve the booster by MLflow; its rows are numbers, as its signature says."""
    saved, port = folder / "mlflow-model", free_port()
    kind_of("lightgbm").save_for_mlflow(Path(bundle), saved, digest="")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    bodies = [json_of(dataframe_split={"columns": NAMES, "data": [row]}) for row in rows(64)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with _process(
        "mlflow serve",
        command,
        port,
        "/invocations",
        bodies,
        folder=folder,
        environment={"PATH": path, "MLFLOW_TRACKING_URI": f"file:{folder / 'none'}"},
    ) as server:
        yield server


def _is_up(server: Server, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{server.name} ended with code {process.returncode}")
    try:
        return _ask(server).status_code == 200
    except httpx.TransportError:
        return False


def _answers(server: Server) -> None:
    answer = _ask(server)
    if answer.status_code != 200:
        raise RuntimeError(f"{server.name} answers {answer.status_code}: {answer.text[:500]}")


def _ask(server: Server) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{server.port}{server.path}",
        content=server.bodies[0],
        headers={"content-type": "application/json"},
        timeout=30,
    )
