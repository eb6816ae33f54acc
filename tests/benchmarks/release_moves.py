"""How long a decision about a model takes to reach every answer of a node that is under load.

While wrk asks by 64 connections, one more asks about once a millisecond and sees who answers. A
time is from the commit that decides, or the call that asks, to the last answer that is not as was
decided; the load's own answers may not fail meanwhile.
"""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.serving.assignment import WHOLE
from tests.benchmarks.serving_desk import ENTITIES, WideDesk, json_of
from tests.benchmarks.serving_load import Load, drive
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, Node, until

CONNECTIONS = 64
LIMIT_MS = 3_000.0  # the node looks at the records once a second, and a new model is loaded
SETTLED_SECONDS = 0.3  # without a wrong answer: it is everybody's
Who = tuple[int, str]  # version and arm


@dataclass
class Prober:
    """Asks again and again, and keeps the times of the answers by who gave them."""

    port: int
    last: dict[Who, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until it is stopped."""
        body = json_of(entity=1)
        asked = (
            f"POST /v1/{NAME}/predict HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            while not self._stop.is_set():
                connection.sendall(asked)
                told = _answer(connection)
                self.last[told["model_version"], told["arm"]] = time.monotonic()
                time.sleep(0.001)  # else the thread that decides would wait for this one

    def stop(self) -> None:
        """End."""
        self._stop.set()

    def ms_until_all_are(self, who: Who, since: float) -> float:
        """Return the ms from `since` to the last answer of anybody else, once there is none."""

        def others() -> float:
            return max([at for one, at in [*self.last.items()] if one != who], default=since)

        def is_settled() -> bool:
            now = time.monotonic()
            return self.last.get(who, 0.0) > since and now - others() > SETTLED_SECONDS

        until(is_settled, what=f"answers of {who} alone: {self.last}", seconds=30)
        return max(0.0, others() - since) * 1e3


def _answer(connection: socket.socket) -> dict[str, Any]:
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), got
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    told: dict[str, Any] = json.loads(body)
    return told


def measure(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Measure and return the figures, in ms."""
    folder.mkdir(parents=True, exist_ok=True)
    desk = WideDesk(folder / "home")
    desk.publish_rows()
    desk.train(1)
    desk.record_route(champion=1)
    times: dict[str, list[float]] = {}
    with desk.node() as node:
        node.serves(1)
        with _load(node, desk, folder) as (prober, loads):
            champion = 1
            for number in range(rounds):
                _round(desk, node, prober, champion, 2 * number + 2, times)
    failed = sum(load.failed for load in loads)
    figures = {
        name: {"ms": statistics.median(all_ms), "low": min(all_ms), "high": max(all_ms)}
        for name, all_ms in times.items()
    }
    exceeded = [
        f"{name}: {one['high']:.0f} ms, limit {LIMIT_MS:.0f}"
        for name, one in figures.items()
        if one["high"] > LIMIT_MS
    ]
    exceeded += [f"moves: {failed} requests failed"] if failed else []
    return {
        "times": figures,
        "failed": failed,
        "rate": statistics.median(load.rate for load in loads),
        "exceeded": exceeded,
    }


def _round(
    desk: WideDesk,
    node: Node,
    prober: Prober,
    champion: int,
    version: int,
    times: dict[str, list[float]],
) -> None:
    """Roll a challenger back, promote the next one and roll that back: `champion` answers again."""

    def timed(name: str, act: Callable[[], object], who: Who) -> None:
        since = time.monotonic()
        act()
        times.setdefault(name, []).append(prober.ms_until_all_are(who, since))

    def ready(version: int) -> bool:
        told = node.health.get("roles", {}).get("challenger", {})
        return told.get("state") == "ready" and told.get("version") == version

    for number, challenger in enumerate((version, version + 1)):
        desk.train(challenger)  # after the rollback before: older ones are released no more
        releasing = Releasing(desk, challenger, WHOLE)
        until(lambda challenger=challenger: ready(challenger), what="challenger", seconds=120)  # type: ignore[misc]
        releasing.begin()
        timed(
            "share raised to 100 %", lambda r=releasing: r.beat(600.0), (challenger, "challenger")
        )  # type: ignore[misc]
        if number == 0:
            timed("challenger rolled back, on record", releasing.roll_back, (champion, "champion"))
            continue
        timed("promoted", releasing.promote, (challenger, "champion"))
        order = {"reason": "a benchmark", "version": challenger}

        def roll_back(order: dict[str, Any] = order) -> None:
            told = node.post(f"/v1/{NAME}/rollback", json=order, headers=node.token)
            assert told.status in (200, 202), told

        timed("champion rolled back, at the node", roll_back, (champion, "champion"))


@contextmanager
def _load(node: Node, desk: WideDesk, folder: Path) -> Iterator[tuple[Prober, list[Load]]]:
    """Ask a node without a pause, and see who answers."""
    assert node.process is not None
    pid, port = node.process.pid, desk.settings.node_port
    bodies = [json_of(entity=number) for number in range(0, ENTITIES, 7)]
    stop, loads, prober = threading.Event(), list[Load](), Prober(port)

    def ask() -> None:
        while not stop.is_set():
            path = f"/v1/{NAME}/predict"
            loads.append(
                drive(pid, port, path, bodies, connections=CONNECTIONS, seconds=5, folder=folder)
            )

    threads = [threading.Thread(target=ask), threading.Thread(target=prober.run)]
    for thread in threads:
        thread.start()
    try:
        yield prober, loads
    finally:
        stop.set()
        prober.stop()
        for thread in threads:
            thread.join()


def table(found: dict[str, Any]) -> list[str]:
    """Return the figures as lines."""
    return [
        f"  under load ({CONNECTIONS} connections, {found['rate']:.0f} answers/s, "
        f"{found['failed']} failed), ms to 100 % of the answers: median, least, most"
    ] + [
        f"    {name:<36} {one['ms']:7.0f} {one['low']:7.0f} {one['high']:7.0f}"
        for name, one in found["times"].items()
    ]
