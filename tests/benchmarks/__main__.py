"""Run the benchmarks: `python -m tests.benchmarks [--quick] [--check]`; docs/benchmarks.md says
what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from include.clock import utc_now
from include.config.settings import ROOT
from include.pipeline.provenance import git_commit

SIZES = ("1M", "10M", "30M", "1M-entities")  # as growth_at_size has them, which imports much
PARTS = ("size", "growth", "serving", "release", "stages", "orchestration")
Figures = dict[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 where `--check` is given and a limit is exceeded."""
    asked = _parser().parse_args(words)
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    home = (asked.home or Path(tempfile.mkdtemp(prefix="evergreen-bench-"))).resolve()
    asked.small = asked.small or asked.quick
    customers, days = (1_000, 110) if asked.small else (asked.customers, asked.days)
    figures: Figures = {
        "at": utc_now().isoformat(),
        "git_commit": git_commit(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "customers": customers,
        "days": days,
        "repeats": asked.repeats,
    }
    began = time.monotonic()
    try:
        if "size" in asked.parts:
            figures |= _at_size(home / "size", asked.quick, asked.repeats)
        if "growth" in asked.parts and asked.size:
            figures |= _growth_at_size(home / "growth", asked.size)
        elif "growth" in asked.parts:
            figures |= _growth(home / "growth", asked.quick)
        if "serving" in asked.parts:
            figures |= _serving(home / "serving", asked.quick)
        if "release" in asked.parts:
            figures |= _release(home / "release", asked.quick)
        if "stages" in asked.parts:
            figures |= _stages(home / "stages", customers, days, asked.repeats, asked.small)
        if "orchestration" in asked.parts:
            figures |= _orchestration(home / "orchestration")
    finally:
        if asked.home is None:
            shutil.rmtree(home, ignore_errors=True)
    figures["took"] = time.monotonic() - began
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / f"{utc_now():%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(figures, indent=1, default=str) + "\n")
    table = "\n".join(_table(figures))
    print(f"\n{table}\n\nwritten to {path}")
    missed = [
        name
        for name in ("growth", "serving", "release", "chain", "rerun", "orchestration")
        if name in figures and not figures[name]["passed"]
    ]
    missed += [name for name, one in figures.get("size", {}).items() if not one["passed"]]
    return 1 if asked.check and missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--small",
        action="store_true",
        help="1,000 customers and 110 days: a quick try, its ratios say little",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="as --small, a tenth of the rows where join, validation and drift are measured, and "
        "fewer rounds of serving",
    )
    parser.add_argument(
        "--customers",
        type=int,
        default=20_000,
        help="customers of the portfolio (20,000 x 180 days: 1M events)",
    )
    parser.add_argument(
        "--days", type=int, default=180, help="days of history that are loaded first"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="measured days; figures are medians over them"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure"
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        help="with --parts growth: measure one load, or one night, of this size alone",
    )
    parser.add_argument(
        "--home", type=Path, help="folder to keep and to use again (default: a temporary one)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "var" / "benchmarks", help="folder of the JSON files"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a limit is exceeded"
    )
    return parser


def _at_size(home: Path, quick: bool, repeats: int) -> Figures:
    from tests.benchmarks import size

    def say(text: str) -> None:
        print(text, flush=True)

    return {"size": size.measure(home, quick=quick, repeats=repeats, say=say)}


def _growth(home: Path, quick: bool) -> Figures:
    from tests.benchmarks import growth

    return {"growth": growth.measure(home, quick=quick, say=lambda text: print(text, flush=True))}


def _growth_at_size(home: Path, size: str) -> Figures:
    from tests.benchmarks import growth_at_size

    found = growth_at_size.measure(home, size, say=lambda text: print(text, flush=True))
    return {"growth_at_size": found}


def _serving(home: Path, quick: bool) -> Figures:
    from tests.benchmarks import serving

    print("serving: a bare application, the node, and other servers beside it", flush=True)

    def say(text: str) -> None:
        print(text, flush=True)

    rounds, seconds = (2, 2) if quick else (6, 3)
    return {"serving": serving.measure(home, rounds=rounds, seconds=seconds, say=say)}


def _release(home: Path, quick: bool) -> Figures:
    from tests.benchmarks import release

    print("release: what one costs a node and its callers", flush=True)
    found = release.measure(home, quick=quick, say=lambda text: print(text, flush=True))
    return {"release": found}


def _stages(home: Path, customers: int, days: int, repeats: int, small: bool) -> Figures:
    from tests.benchmarks.stages import Portfolio, measure

    portfolio = Portfolio(home, customers, small)
    print(f"loading {days} days of {customers:,} customers", flush=True)
    load = portfolio.load(days)
    print(f"one day's chain on {portfolio.events():,} events of history", flush=True)
    found = measure(portfolio, home / "script", repeats, lambda text: print(text, flush=True))
    return {"events": portfolio.events(), "load": load} | found


def _orchestration(home: Path) -> Figures:
    from tests.benchmarks import orchestration

    print("the chain through Airflow", flush=True)
    orchestration.run_installation(
        home, customers=300, days=110, say=lambda text: print(text, flush=True)
    )
    return {"orchestration": orchestration.measure(home)}


def _table(figures: Figures) -> list[str]:
    lines = []
    if "size" in figures:
        from tests.benchmarks import size

        lines += size.table(figures["size"])
    if "growth" in figures:
        from tests.benchmarks import growth

        lines += growth.table(figures["growth"])
    if "growth_at_size" in figures:
        from tests.benchmarks import growth_at_size

        lines += growth_at_size.table(figures["growth_at_size"])
    if "serving" in figures:
        from tests.benchmarks import serving

        lines += serving.table(figures["serving"])
    if "release" in figures:
        from tests.benchmarks import release

        lines += release.table(figures["release"])
    if figures.get("load"):
        lines += ["history in one pass, seconds a day (wall / CPU)"]
        lines += [
            f"  {stage:<12} {one['wall_per_day']:8.3f} {one['cpu_per_day']:8.3f}"
            for stage, one in figures["load"].items()
        ]
    if "chain" in figures:
        chain, rerun = figures["chain"], figures["rerun"]
        lines += [
            "",
            f"one day's chain, {figures['events']:,} events of history, medians of "
            f"{figures['repeats']}",
        ]
        lines += [
            f"  {'':<12} {'stage s':>8} {'bare s':>8} {'ratio':>7} {'CPU':>7} {'again s':>8} "
            f"{'rerun':>7}"
        ]
        for stage, one in chain["stages"].items():
            again = rerun["stages"][stage]
            lines.append(
                f"  {stage:<12} {one['seconds']:8.3f} {one['bare']:8.3f} {one['ratio']:7.2f} "
                f"{one['cpu_ratio']:7.2f} {again['again']:8.3f} {again['ratio']:7.3f}"
            )
        lines.append(
            f"  {'all':<12} {chain['seconds']:8.3f} {chain['bare']:8.3f} {chain['ratio']:7.2f} "
            f"{chain['cpu_ratio']:7.2f}"
        )
        lines += [
            f"(a) stages over bare calls      {chain['ratio']:6.2f}  limit {chain['limit']}, aim "
            f"{chain['aim']}  {_word(chain)}",
            f"(c) rerun over first run        {rerun['ratio']:6.3f}  limit {rerun['limit']}  "
            f"{_word(rerun)} (without ingestion)",
            "    ingestion, beyond one read  "
            f"{rerun['ingest_data']['beyond_read_over_first']:6.3f}  limit {rerun['limit']}  (all "
            f"of it over one read: {rerun['ingest_data']['over_read']:.2f})",
        ]
    if "orchestration" in figures:
        found = figures["orchestration"]
        lines += [
            "",
            f"orchestration, partition {found['partition']}: task (to its start + to the run's "
            "end), hop",
        ]
        lines += [
            f"  {t['dag'] + '.' + t['task']:<44} {t['start']:6.2f} + {t['tail']:5.2f}   (code "
            f"{t['code']:.2f})"
            for t in found["tasks"]
        ]
        lines += [
            f"  {h['from'] + ' -> ' + h['to']:<44} {h['seconds']:6.2f}" for h in found["hops"]
        ]
        lines += [
            f"(b) per task {found['per_task']:.2f} (median {found['per_task_median']:.2f}, limit "
            f"{found['limit_task']}), per hop {found['per_hop']:.2f} (median "
            f"{found['per_hop_median']:.2f}, limit {found['limit_hop']})  {_word(found)}"
        ]
    return lines


def _word(figures: Figures) -> str:
    return "ok" if figures["passed"] else "EXCEEDED"


if __name__ == "__main__":
    sys.exit(main())
