"""A use case with a file a day, and what `evergreen` answers to a command."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from include.config.settings import settings
from include.records.records import Model, Records, StageResult

AT = datetime(2025, 3, 9, tzinfo=UTC)
DAYS, ROWS = 8, 40
START = datetime(2025, 3, 1, tzinfo=UTC)
YAML = """\
name: visits
history: {first: 2025-03-01, last: 2025-03-08}
entity: {name: customer, key: customer_id}
sources:
  rows:
    path: rows/{partition}.csv
    event_time: at
    arrival: event + 0s
    key: [visit_id]
    max_bad: 0.2
    columns:
      visit_id: {type: int64, nullable: false}
      customer_id: {type: int64, nullable: false}
      at: {type: timestamp, nullable: false}
      amount: {type: float64, max: 1000}
      channel: {type: string}
      closed: {type: timestamp}
      label: {type: int64}
label: {source: rows, column: label, label_time: closed, delay: 1d}
features:
  visit:
    grain: event
    source: rows
    lookback: 3d
    ttl: 30d
    columns: {amount: float64, channel: string}
gates: {min_rows: 5, min_auc: 0.55, max_calibration_error: 0.5, over_baseline: -0.2}
"""


class Done(NamedTuple):
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def write_day(folder: Path, day: int, *, factor: float = 1.0, bad: int = 0) -> Path:
    """Write a day's visits: spending says much about the outcome, which is known 12 hours later."""
    rng = random.Random(day)
    path = folder / "rows" / f"{(START + timedelta(days=day)).date()}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["visit_id", "customer_id", "at", "amount", "channel", "closed", "label"])
        for number in range(ROWS):
            at = START + timedelta(days=day, minutes=number)
            amount = rng.gauss(50, 10)
            label = int(amount + rng.gauss(0, 5) > 50)
            shown = 9e9 if number < bad else f"{amount * factor:.2f}"
            visit = day * ROWS + number
            out.writerow(
                [
                    visit,
                    visit % 30,
                    at.isoformat(),
                    shown,
                    rng.choice("ab"),
                    (at + timedelta(hours=12)).isoformat(),
                    label,
                ]
            )
    return path


def list_rows(run: Run, *arguments: object) -> list[dict[str, Any]]:
    """Return what a command prints as JSON; nothing else stands on standard output."""
    done = run(*arguments, "--json")
    assert done.code == 0, done
    rows: list[dict[str, Any]] = json.loads(done.out)
    assert all(not isinstance(value, dict | list) for row in rows for value in row.values())
    return rows


def open_records() -> Records:
    """Return the records of the installation that `run` uses."""
    settings().home.mkdir(parents=True, exist_ok=True)
    records = Records.open(settings().records_address)
    records.migrate()
    return records


def result(key: str, stage: str, *, state: str = "done", **outputs: Any) -> StageResult:
    """Return what a stage of `visits` came to."""
    return StageResult(
        "visits",
        key,
        stage,
        state,
        f"{stage} {key}",
        "",
        outputs,
        [],
        "m",
        "live",
        AT,
        AT,
        0.1,
        "none",
    )


def record(into: Records, made: StageResult) -> None:
    """Put a result on record, as a stage does."""
    with into.leases.claim(
        "visits", made.stage, made.key, owner="test", attempt=1, ttl=30
    ) as lease:
        into.results.commit(lease, made)


def add_model(into: Records, version: int, key: str) -> None:
    """Register a model of `visits` whose digest ends with its version."""
    digest = f"sha256:{version:064}"
    into.models.add(
        Model("visits", version, digest, key, AT, "live", "fs1", "bundle", state="challenger")
    )
