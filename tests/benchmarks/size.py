"""The join, validation and drift at size: each beside its floor and a peer, in own processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import alone, contracts, drifts, joins

AIMS = {"join": 3.0, "validation": 2.0, "drift": 1.5}
AIM_PEAK = {"join": 1.3}
FLOORS = {"join": "read", "validation": "scan", "drift": "bare"}
MODULES = {"join": "joins", "validation": "contracts", "drift": "drifts"}
PEERS = {"join": "feast", "validation": "great_expectations", "drift": "evidently"}


def measure(folder: Path, *, quick: bool, repeats: int, say: Callable[[str], None]) -> Any:
    """Measure all three; return medians, and ratios to the floor, by subject.

    Ratios are of CPU seconds: what else runs on the machine stretches the wall's. A peer runs once,
    since it takes many times as long; that of the join over a tenth of the rows, with a floor of
    its own, since it may hold ten times its rows in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = 100_000 if quick else 1_000_000
    sizes = {
        "join": f"{10 * rows:,} feature rows x {rows:,} decisions",
        "validation": f"{rows:,} rows of one day",
        "drift": f"{rows:,} rows a side x {drifts.COLUMNS} columns",
    }
    joins.prepare(folder, 10 * rows, rows)
    contracts.prepare(folder, rows)
    drifts.prepare(folder, rows)
    found = {}
    for subject, size in sizes.items():
        say(f"{subject}: {size}")
        module = f"tests.benchmarks.{MODULES[subject]}"
        floor, peer = FLOORS[subject], PEERS[subject]
        runs = alone.compare(
            {name: f"{module}:{name}" for name in (floor, "ours")}, folder, repeats
        )
        beside = runs
        if subject == "join":
            few = folder / "tenth"
            few.mkdir(exist_ok=True)
            joins.prepare(few, rows, rows // 10)
            beside = alone.compare({floor: f"{module}:{floor}", peer: f"{module}:{peer}"}, few, 1)
        else:
            beside |= alone.compare({peer: f"{module}:{peer}"}, folder, 1)
        ratios = {
            name: {what: run[what] / all_of[floor][what] for what in ("wall", "cpu", "peak")}
            for all_of in (beside, runs)
            for name, run in all_of.items()
        }
        runs = beside | runs
        mine = ratios["ours"]
        found[subject] = {
            "size": size,
            "floor": floor,
            "runs": runs,
            "ratios": ratios,
            "aim": AIMS[subject],
            "aim_peak": AIM_PEAK.get(subject),
            "passed": mine["cpu"] <= AIMS[subject]
            and (subject not in AIM_PEAK or mine["peak"] <= AIM_PEAK[subject]),
        }
    return found


def table(found: Any) -> list[str]:
    """Return the figures as lines."""
    lines = ["", f"at size: CPU s, peak MB, and both over the floor {'CPU':>23} {'wall':>6} peak"]
    for subject, one in found.items():
        lines.append(f"  {subject}, {one['size']}; aim {one['aim']}")
        for name, run in one["runs"].items():
            ratio = one["ratios"][name]
            lines.append(
                f"    {name:<20} {run['cpu']:8.2f} {run['peak']:8.0f} {ratio['cpu']:20.2f} "
                f"{ratio['wall']:6.2f} {ratio['peak']:5.2f}   {run['answer']}"
            )
    return lines
