"""What a shadow costs the callers of a really started node: at half of its rate, and at all of it.

The challenger of a release mirrors every request. Off and on by turns, so that what else happens on
the machine meets both: off is the release suspended. The half rate is kept by the connections, each
of which waits between two requests.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from include.clock import wait_for
from tests.benchmarks.serving_desk import NAMES, WideDesk, rows
from tests.benchmarks.serving_load import Load, drive, has_wrk
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, Node

CONNECTIONS = 64
LIMIT_P99, AIM_P99 = 1.2, 1.05  # at half the rate, to that without a shadow


def measure(
    folder: Path, *, rounds: int, seconds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure and return the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    desk = WideDesk(folder / "home")
    desk.publish_rows()
    desk.candidate(1)
    desk.record_route(champion=1)
    desk.candidate(2)
    bodies = [
        json.dumps({"features": dict(zip(NAMES, row, strict=True))}).encode() for row in rows(64)
    ]
    loads: dict[str, list[Load]] = {}
    with desk.node() as node:
        node.serves(1)
        assert node.process is not None
        pid, port, path = node.process.pid, desk.settings.node_port, f"/v1/{NAME}/predict"

        def load(name: str, pause: int = 0) -> Load:
            one = drive(
                pid,
                port,
                path,
                bodies,
                connections=CONNECTIONS,
                seconds=seconds,
                folder=folder,
                pause=pause,
            )
            loads.setdefault(name, []).append(one)
            return one

        load("warm")
        releasing = Releasing(desk, 2, 0, 500)
        releasing.begin()
        saturated = min(rounds, 3)
        full = statistics.median(load("saturated, off").rate for _ in range(saturated))
        pause = max(1, round(CONNECTIONS / (full / 2) * 1000))
        for number in range(rounds):
            for state in ("off", "on") if number % 2 else ("on", "off"):
                _set(node, releasing, on=state == "on")
                load(f"half, {state}", pause)
            say(f"  shadow, pair {number + 1} of {rounds}")
        _set(node, releasing, on=True)
        half = dict(node.health["shadow"])
        for _ in range(saturated):
            load("saturated, on")
        return _judged(loads, half, dict(node.health["shadow"]))


def _set(node: Node, releasing: Releasing, *, on: bool) -> None:
    """Let the challenger be asked, or not."""
    if on and releasing.release.suspended:
        releasing.resume()
    if not on and not releasing.release.suspended:
        releasing.suspend()

    def is_so() -> bool:
        releasing.beat(600.0)
        told = node.health.get("release") or {}
        return (told.get("mode") == "shadow" and "withheld" not in told) == on

    if not wait_for(is_so, seconds=60, every=0.1):
        raise RuntimeError(f"the node says {node.health}")


def _judged(
    loads: dict[str, list[Load]], half: dict[str, Any], whole: dict[str, Any]
) -> dict[str, Any]:
    figures = {
        name: {what: statistics.median(getattr(one, what) for one in all_loads) for what in _WHAT}
        | {"failed": sum(one.failed for one in all_loads)}
        for name, all_loads in loads.items()
    }
    pairs = zip(loads["half, on"], loads["half, off"], strict=True)
    low, ratio, high = statistics.quantiles((on.p99 / off.p99 for on, off in pairs), n=4)
    failed = sum(one["failed"] for one in figures.values())
    exceeded = [f"shadow: {failed} requests failed"] if failed else []
    if has_wrk() and ratio > LIMIT_P99:
        exceeded.append(f"shadow: p99 at half the rate {ratio:.2f}, limit {LIMIT_P99}")
    return {
        "loads": figures,
        "p99_ratio": ratio,
        "p99_quartiles": (low, high),
        "p99_of_medians": figures["half, on"]["p99"] / figures["half, off"]["p99"],
        "at_half": half,
        "at_the_end": whole,
        "exceeded": exceeded,
        "passed": not exceeded,
    }


_WHAT = ("rate", "p50", "p99", "cpu")


def table(found: dict[str, Any]) -> list[str]:
    """Return the figures as lines."""
    lines = [
        f"  shadow of every request, {CONNECTIONS} connections",
        f"    {'':<16} {'answers/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8}",
    ]
    lines += [
        f"    {name:<16} {one['rate']:10.0f} {one['p50']:8.3f} {one['p99']:8.3f} {one['cpu']:8.1f}"
        for name, one in found["loads"].items()
        if name != "warm"
    ]
    low, high = found["p99_quartiles"]
    half, end = found["at_half"], found["at_the_end"]
    return [
        *lines,
        f"  p99 at half the rate, to that without: {found['p99_ratio']:.2f} (quartiles of pairs "
        f"{low:.2f} to {high:.2f}; medians of each {found['p99_of_medians']:.2f}; limit "
        f"{LIMIT_P99}, aim {AIM_P99})",
        f"  mirrored at half the rate {half['answered']}, dropped {half['dropped']}; saturated "
        f"{end['answered'] - half['answered']}, dropped {end['dropped'] - half['dropped']}, "
        f"{end['share']:g} % of the entities are left; failed {end['failed']}",
    ]
