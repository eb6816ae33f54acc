"""One load, or one night, of a given size: `--parts growth --size 10M`, asked for by hand.

A load of the portfolio is one stage after the other, in a process of its own; its figures are CPU
seconds, wall seconds and the most memory held. `1M-entities` is a night of 400,000 events of a
million entities, whose view looks back over ten days.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import growth
from tests.builders.installation import Installation

LOADS = {"1M": 20_000, "10M": 200_000, "30M": 600_000}  # customers, who pay for so many events
DAYS = 180
ENTITIES, EVENTS, NIGHT = 1_000_000, 400_000, 10
YAML = """
name: visits
history: {first: 2026-01-01}
entity: {name: person, key: person_id}
sources:
  visits:
    path: "visits-{partition}.parquet"
    key: [visit_id]
    columns:
      visit_id: {type: int64, nullable: false}
      person_id: {type: int64, nullable: false}
      minutes: {type: float64, min: 0}
      pages: {type: int64, min: 1}
      bought: {type: int64, values: ["0", "1"]}
label: {source: visits, column: bought, label_time: event + 1d, delay: 1d}
features:
  habits:
    lookback: 10d
    ttl: 10d
    columns:
      visits: int64
      minutes: float64
      minutes_max: float64
      pages: int64
      bought: int64
    sql: |
      SELECT person_id, count(*) AS visits, avg(minutes) AS minutes, max(minutes) AS minutes_max,
          CAST(sum(pages) AS BIGINT) AS pages, CAST(sum(bought) AS BIGINT) AS bought
      FROM visits GROUP BY person_id
"""


def measure(folder: Path, size: str, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure one size; return what each stage cost, the events and the most memory."""
    if size in LOADS:
        say(f"growth: a load of {DAYS} days of {LOADS[size]:,} customers")
        found = growth.in_a_child("load", folder / size, LOADS[size], DAYS)
    else:
        say(f"growth: a night of {ENTITIES:,} entities, {EVENTS:,} events a day")
        module = "tests.benchmarks.growth_at_size"
        found = growth.in_a_child("night", folder / size, ENTITIES, EVENTS, module=module)
    return {"size": size} | found


def table(found: dict[str, Any]) -> list[str]:
    """Return the figures as lines."""
    lines = ["", f"growth at size, {found['size']}: {found['events']:,} events"]
    lines.append(f"  {'':<24}{'CPU s':>9}{'wall s':>9}")
    stages = found["stages"]
    for stage, one in stages.items():
        lines.append(f"  {stage:<24}{one['cpu']:9.1f}{one['wall']:9.1f}")
    sums = [sum(one[what] for one in stages.values()) for what in ("cpu", "wall")]
    lines.append(f"  {'all':<24}" + "".join(f"{each:9.1f}" for each in sums))
    lines.append(f"  most memory {found['peak']:,.0f} MB")
    return lines


def night(home: Path, entities: int, events: int) -> dict[str, Any]:
    """Load all days but the last one, and run that as a live night; return what it cost."""
    made = _installation(home, entities, events)
    first = made.use_case.history.first
    keys = [(first + timedelta(days=day)).isoformat() for day in range(NIGHT)]
    for report in made.load(keys[0], keys[-2]):
        if report.state != "done":
            raise RuntimeError(f"{report.stage} {report.key}: {report.state}, {report.reason}")
    made.ask(keys[-1], mode="live", target="data")
    stages = {}
    for stage in growth.STAGES:
        began = _clock()
        report = made.run(stage, keys[-1])
        wall, cpu = (now - before for now, before in zip(_clock(), began, strict=True))
        if report.state != "done":
            raise RuntimeError(f"{stage}: {report.state}, {report.reason}")
        stages[stage] = {"wall": wall, "cpu": cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"stages": stages, "events": events * NIGHT, "peak": peak}


def _installation(home: Path, entities: int, events: int) -> Installation:
    """Return an installation whose days lie there as files, a day a file."""
    folder = home / "usecases"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "visits.yaml").write_text(YAML)
    made, random = Installation(home, "visits"), np.random.default_rng(0)
    for day in range(NIGHT):
        start = np.datetime64("2026-01-01T00:00:00", "us") + np.timedelta64(day, "D")
        moment = start + np.sort(random.integers(0, 86_000, events)).astype("timedelta64[s]")
        stamps = pa.array(moment, pa.timestamp("us", tz="UTC"))
        rows = pa.table(
            {
                "visit_id": np.arange(events) + day * events,
                "person_id": random.integers(0, entities, events),
                "event_timestamp": stamps,
                "created_timestamp": stamps,
                "minutes": np.round(random.exponential(9, events), 2),
                "pages": random.integers(1, 30, events),
                "bought": random.integers(0, 2, events),
            }
        )
        pq.write_table(rows, folder / f"visits-2026-01-{day + 1:02}.parquet")
    return made


def _clock() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    print(json.dumps(night(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])), default=str))
