"""What a release costs a really started node and its callers: the part `release`.

- *throughput*: every request is the challenger's, beside a bare application, by turns;
- *shadow*: the callers' p99 with every request mirrored and without (`serving_shadow`);
- *costs*: CPU a request of assignment and windows (`release_costs`);
- *moves*: how fast a promotion and a rollback reach everybody under load (`release_moves`).
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import release_costs, release_moves, serving_shadow
from tests.benchmarks.serving import FLOOR, Server, bare_server, load_of
from tests.benchmarks.serving_desk import ENTITIES, bundle_files, json_of, named, rows
from tests.benchmarks.serving_load import Load, has_wrk, machine_is_busy
from tests.benchmarks.serving_release import node_in_release

CONNECTIONS = 64
LIMIT_RATE = 0.45  # answers a second, to the bare application's


def measure(folder: Path, *, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure and return the figures; on two idle cores it takes some three minutes."""
    busy, wrk, seconds = machine_is_busy(), has_wrk(), 2
    if not wrk:
        say("wrk is not installed (apt-get install wrk): of the rest only CPU us say something")
    say("  release: throughput with all requests the challenger's")
    throughput = _throughput(folder / "throughput", rounds=2 if quick else 6, seconds=seconds)
    say("  release: shadow")
    shadow = serving_shadow.measure(
        folder / "shadow", rounds=3 if quick else 11, seconds=seconds, say=say
    )
    say("  release: CPU of assignment and windows")
    costs = release_costs.measure(folder / "costs", rounds=60 if quick else 240)
    say("  release: promotions and rollbacks under load")
    moves = release_moves.measure(folder / "moves", rounds=1 if quick else 3)
    found = {
        "throughput": throughput,
        "shadow": shadow,
        "costs": costs,
        "moves": moves,
        "busy": busy,
    }
    exceeded = [*shadow["exceeded"], *moves["exceeded"]]
    for name, one in throughput.items():
        if wrk and one["rate"]["median"] < LIMIT_RATE:
            exceeded.append(f"{name}: throughput {one['rate']['median']:.2f}, limit {LIMIT_RATE}")
        if one["failed"]:
            exceeded.append(f"{name}: {one['failed']} requests failed")
    exceeded += release_costs.exceeded(costs)
    return found | {"exceeded": exceeded, "passed": not exceeded}


def _throughput(folder: Path, *, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the ratios of the challenger's answers to the floor's, by rounds of both."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = [json_of(features=named(row)) for row in rows(64)]
    model = folder / "floor"
    model.mkdir()
    (model / "model.txt").write_bytes(bundle_files(1)["model.txt"])
    with contextlib.ExitStack() as running:
        floor = running.enter_context(bare_server(model / "model.txt", bodies))
        node = running.enter_context(node_in_release(folder / "node"))
        by_entity = [json_of(entity=number) for number in range(0, ENTITIES, 7)]
        contenders = (
            floor,
            Server("row", *node, bodies),
            Server("entity", *node, by_entity),
        )
        loads = {one.name: [load_of(one, CONNECTIONS, 1, folder)] for one in contenders}
        for number in range(rounds):
            for one in contenders[:: 1 if number % 2 == 0 else -1]:
                loads[one.name].append(load_of(one, CONNECTIONS, seconds, folder))
    bare = loads.pop(FLOOR)[1:]  # the first ones have warmed

    def ratios(ours: list[Load], what: str) -> dict[str, float]:
        found = [getattr(a, what) / getattr(b, what) for a, b in zip(ours, bare, strict=True)]
        return {"median": statistics.median(found), "low": min(found), "high": max(found)}

    return {
        name: {what: ratios(ours[1:], what) for what in ("rate", "cpu", "p99")}
        | {"failed": sum(one.failed for one in ours)}
        for name, ours in loads.items()
    }


def table(found: dict[str, Any]) -> list[str]:
    """Return the figures as lines."""
    lines = [
        "",
        "release of a model of 30 features and 100 trees, 64 connections",
        "  every request the challenger's, over the bare application of the same round: median "
        "(least to most)",
    ]
    lines += [
        f"    by {name:<8} answers/s {_spread(one['rate'])}, CPU {_spread(one['cpu'])}, p99 "
        f"{_spread(one['p99'])}"
        for name, one in found["throughput"].items()
    ]
    lines += serving_shadow.table(found["shadow"])
    lines += release_costs.table(found["costs"])
    lines += release_moves.table(found["moves"])
    if found["busy"]:
        lines.append("  others used the machine when this began: read ratios and spreads alone")
    return lines + ([f"  EXCEEDED {t}" for t in found["exceeded"]] or ["  all limits are kept: ok"])


def _spread(one: dict[str, float]) -> str:
    return f"{one['median']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
