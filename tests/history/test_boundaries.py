"""Rows at each boundary, one microsecond before and after, through daily runs, a range and a
rebuild: raw to features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.builders import stored
from tests.builders.installation import DATA_STAGES
from tests.builders.intake import GOOD, HEAD, Intake

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
EDGES = {1: "01T23:59:59.999999Z", 2: "02T00:00:00Z", 3: "02T00:00:00.000001Z"}
EDGES |= {4: "02T23:59:59.999999Z", 5: "03T00:00:00Z", 6: "03T00:00:00.000001Z"}
BELONG = {DAYS[0]: [1], DAYS[1]: [2, 3, 4], DAYS[2]: [5, 6]}


def edges() -> str:
    """Return an order at each boundary, of one customer, whose amount names it."""
    return HEAD + "".join(
        f"{n},1,2026-01-{at},2026-01-{at},{2**n},{n % 2}\n" for n, at in EDGES.items()
    )


def daily(made: Intake) -> None:
    made.put(edges())
    for key in DAYS:
        made.day(key, DATA_STAGES)


def ranged(made: Intake) -> None:
    made.put(edges())
    made.load(DAYS[0], DAYS[-1], started=made.night(DAYS[-1]))


def rebuilt(made: Intake) -> None:
    """Take wrong rows in first, then restate every day and run its stages again, the newest
    first.
    """
    made.put(HEAD + GOOD)
    made.load(DAYS[0], DAYS[-1], started=made.night(DAYS[-1]))
    made.put(edges())
    for key in DAYS[::-1]:
        made.ingest(key, at=made.night(DAYS[-1]), restate="the till was wrong")
    for stage in DATA_STAGES[1:]:
        for key in DAYS:
            made.run(stage, key)


@pytest.mark.slow
def test_every_row_is_in_one_partition_and_known_from_its_as_of_on(tmp_path: Path) -> None:
    digests = []
    for how in (daily, ranged, rebuilt):
        made = Intake(tmp_path / how.__name__)
        how(made)
        for day, key in enumerate(DAYS):
            assert sorted(int(row["order_id"]) for row in made.raw(key)) == BELONG[key], how
            assert [row["order_id"] for row in made.curated(key)] == BELONG[key], how
            known = [number for other in DAYS[: day + 1] for number in BELONG[other]]
            assert features(made, key) == [(1, float(sum(2**number for number in known)))], how
            assert labels(made, key) == [number % 2 for number in BELONG[key]], how
        digests.append(made.digests(DAYS))
    assert digests[0] == digests[1] == digests[2]


def features(made: Intake, key: str) -> list[tuple[Any, ...]]:
    """Return each customer's total."""
    (table,) = [table for table in made.tables() if "/features/" in table]
    rows = made.lake.read(table, keys=[key])
    return list(zip(rows["customer_id"].to_pylist(), rows["total"].to_pylist(), strict=True))


def labels(made: Intake, key: str) -> list[int]:
    """Return the labels in order of their decisions."""
    rows = made.lake.read(stored.table(made.lake, "shop/labels"), keys=[key]).sort_by(
        "event_timestamp"
    )
    return [int(label) for label in rows["label"].to_pylist()]
