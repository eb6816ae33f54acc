"""A till: a shop of two ingested days, of whose rows two failed validation."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.validation import redrive as redriving
from tests.builders.installation import Installation
from tests.builders.intake import COLUMNS, HEAD, Intake

AT = datetime(2026, 2, 1, tzinfo=UTC)
ROWS = (
    "1,1,2026-01-01T10:00:00Z,2026-01-01T10:00:00Z,10,1\n"
    "2,2,2026-01-01T11:00:00Z,2026-01-01T11:00:00Z,oops,0\n"
    "3,3,2026-01-01T12:00:00Z,2026-01-01T12:00:00Z,300,1\n"
    "4,1,2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,40,1\n"
    "5,2,2026-01-03T10:00:00Z,2026-01-03T10:00:00Z,50,0\n"
    "6,2,2026-01-04T10:00:00Z,2026-01-04T10:00:00Z,60,0\n"
    "7,2,2026-01-05T10:00:00Z,2026-01-05T10:00:00Z,70,0\n"
)
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04", "2026-01-05"]
LOOSE = "max_bad: 1.0"
STRICT = COLUMNS.replace("amount: {type: float64}", "amount: {type: float64, max: 100}")


class Till(Intake):
    """Two days are taken in; two rows of the first failed."""

    def __init__(self, home: Path, more: str = LOOSE) -> None:
        there = (home / "usecases").exists()
        Installation.__init__(self, home, "shop") if there else super().__init__(
            home, more=more, columns=STRICT
        )
        self.folder = home / "usecases"
        if not there:
            self.put(HEAD + ROWS)
            self.load(DAYS[0], DAYS[1], ["ingest_data", "validate_data"])

    def plan(self, **chosen: Any) -> redriving.Plan:
        chosen = {"partition": DAYS[0]} | chosen if "file" not in chosen else chosen
        return redriving.plan_redrive(self.settings, self.records, self.use_case, **chosen)

    def redrive(self, reason: str = "the till wrote words", **chosen: Any) -> redriving.Plan:
        plan = self.plan(**chosen)
        redriving.record_redrive(
            self.settings, self.records, self.use_case, plan, reason=reason, actor="ann", at=AT
        )
        return plan

    def mend(self) -> redriving.Plan:
        return self.redrive(rule="amount: not_float64", changes={"amount": "20"})


def copy(made: Path, home: Path) -> Till:
    shutil.copytree(made, home)
    return Till(home)
