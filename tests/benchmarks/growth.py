"""What grows with the history: a partition and stage of a load, and a night on top of it.

Three small portfolios are loaded, of 30, 180 and 720 days, and then the next days run stage by
stage as `evergreen run` runs them, each part in a process of its own. A night over a longer history
reads the same windows, so it should cost the same: the figure is the exponent of its CPU seconds
against the days of history. A load is given a partition and stage.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DAYS = (30, 180, 720)
QUICK_DAYS = (30, 90)
CUSTOMERS = 300
WARM_DAYS = 2  # of a load, which import what the stages need and are not counted
NIGHTS = 4  # the first one warms its process up
STAGES = ("ingest_data", "validate_data", "materialize_features")
JUDGED_STAGES = ("train_model", "evaluate_model", "check_drift")
# Of a shorter history the training's window is not full, so what needs outcomes costs less there.
WINDOW_FULL = 120
FIRST = "2024-11-01"  # so early that the longest history, and the nights after it, are over
LIMIT_LOAD, LIMIT_EXPONENT = 0.04, 0.2

Figures = dict[str, Any]


def measure(folder: Path, *, quick: bool, say: Callable[[str], None]) -> Figures:
    """Load each history and run the nights after it; return what both cost, by days."""
    told: dict[int, Figures] = {}
    for days in QUICK_DAYS if quick else DAYS:
        home = folder / f"{days}-days"
        say(f"growth: {days} days of {CUSTOMERS} customers")
        told[days] = {
            "load": in_a_child("load", home, CUSTOMERS, days),
            "night": in_a_child("nights", home, CUSTOMERS, NIGHTS),
        }
    seconds = {days: _night(one, STAGES) for days, one in told.items()}
    judged = {
        days: _night(one, JUDGED_STAGES)
        for days, one in told.items()
        if days >= WINDOW_FULL and all(stage in one["night"]["stages"] for stage in JUDGED_STAGES)
    }
    load = max(
        stage["cpu_per_day"] for one in told.values() for stage in one["load"]["stages"].values()
    )
    exponents = {
        name: exponent(each)
        for name, each in (("data", seconds), ("judged", judged))
        if len(each) > 1
    }
    return {
        "customers": CUSTOMERS,
        "days": told,
        "night": seconds,
        "night_judged": judged,
        "exponents": exponents,
        "load": load,
        "limit_load": LIMIT_LOAD,
        "limit_exponent": LIMIT_EXPONENT,
        "passed": load <= LIMIT_LOAD and max(exponents.values()) <= LIMIT_EXPONENT,
    }


def exponent(seconds: Mapping[int, float]) -> float:
    """Return the power of the days with which seconds grow: the slope of logs, by least squares."""
    points = [(math.log(days), math.log(cost)) for days, cost in seconds.items()]
    mean_x, mean_y = (statistics.fmean(axis) for axis in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )


def table(found: Figures) -> list[str]:
    """Return the figures as lines."""
    lines = ["", f"growth, {found['customers']} customers: CPU s by days of history"]
    names = (*STAGES, *JUDGED_STAGES)
    lines.append(f"  {'':<34}" + "".join(f"{days:>9}" for days in found["days"]))
    for title, part, field in (
        ("load, a partition", "load", "cpu_per_day"),
        ("a night", "night", "cpu"),
    ):
        for stage in names:
            values = [one[part]["stages"].get(stage) for one in found["days"].values()]
            if any(values):
                cells = "".join(f"{one[field]:9.3f}" if one else f"{'-':>9}" for one in values)
                lines.append(f"  {title + ', ' + stage:<34}{cells}")
    for part in ("load", "night"):
        peaks = "".join(f"{one[part]['peak']:9.0f}" for one in found["days"].values())
        lines.append(f"  {'most memory, MB, ' + part:<34}{peaks}")
    for name, value in found["exponents"].items():
        lines.append(f"  exponent of a night, {name} stages: {value:.2f}")
    lines.append(
        f"  limits: {found['limit_load']} a partition and stage of a load, exponent "
        f"{found['limit_exponent']}  {'ok' if found['passed'] else 'EXCEEDED'}"
    )
    return lines


def in_a_child(
    act: str, home: Path, customers: int, count: int, module: str = "tests.benchmarks.growth"
) -> Figures:
    """Run `load` or `nights` in a process of its own; return what it measured.

    Raises:
        RuntimeError: it failed.
    """
    words = ["-m", module, act, str(home), str(customers), str(count)]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{act} of {home} failed:\n{ended.stderr[-3000:]}")
    told: Figures = json.loads(ended.stdout.splitlines()[-1])
    return told


def _night(told: Figures, stages: Sequence[str]) -> float:
    return float(sum(told["night"]["stages"][stage]["cpu"] for stage in stages))


def _portfolio(home: Path, customers: int) -> Any:
    """Return the portfolio of an installation whose history begins early."""
    from tests.benchmarks.stages import Portfolio

    portfolio = Portfolio(home, customers, small=customers < 5_000)
    path = home / "usecases" / "repayment.yaml"
    text = re.sub(r"(first|valid_from): \d{4}-\d\d-\d\d", rf"\1: {FIRST}", path.read_text())
    path.write_text(text)
    return portfolio


def _load(home: Path, customers: int, days: int) -> Figures:
    portfolio = _portfolio(home, customers)
    portfolio.load(WARM_DAYS)
    stages = portfolio.load(days)
    return {"stages": stages, "events": portfolio.events(), "peak": _peak()}


def _nights(home: Path, customers: int, nights: int) -> Figures:
    from include.clock import utc_now

    portfolio = _portfolio(home, customers)
    costs: dict[str, list[tuple[float, float]]] = {}
    ended: dict[str, str] = {}
    for number, key in enumerate(portfolio.next_days(nights)):
        portfolio.records.partitions.raise_to(
            portfolio.use_case.name,
            key,
            mode="live",
            target="deployed",
            actor="benchmark",
            at=utc_now(),
        )
        for stage in (*STAGES, *JUDGED_STAGES):
            began = _clock()
            try:
                report = portfolio.run(stage, key)
            except Exception as error:
                if stage not in JUDGED_STAGES:
                    raise
                ended[stage] = str(error)
                break  # too young for a training: what follows has nothing to judge
            ended[stage] = report.state
            if report.state in ("failed", "blocked"):
                raise RuntimeError(f"{stage} {key}: {report.state}, {report.reason}")
            if number:
                wall, cpu = (now - before for now, before in zip(_clock(), began, strict=True))
                costs.setdefault(stage, []).append((wall, cpu))
            if report.state != "done" and stage == "train_model":
                costs.pop(stage, None)
                break
    return {
        "stages": {
            stage: {
                "wall": statistics.median(wall for wall, _ in one),
                "cpu": statistics.median(cpu for _, cpu in one),
            }
            for stage, one in costs.items()
        },
        "ended": ended,
        "events": portfolio.events(),
        "peak": _peak(),
    }


def _clock() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def _peak() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _act = {"load": _load, "nights": _nights}[sys.argv[1]]
    print(json.dumps(_act(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])), default=str))
