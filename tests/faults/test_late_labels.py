"""Outcomes that take a month and come in part: only the matured cohort is trained and judged on,
through the whole chain.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.training import splits
from tests.builders.installation import Installation

FIRST, WEEKS, EACH = datetime(2026, 1, 5, tzinfo=UTC), 12, 80
KEY = "2026-03-23"
AS_OF = datetime(2026, 3, 30, tzinfo=UTC)
DELAY = timedelta(days=30)
YAML = """
name: loans
cadence: week
history: {first: 2026-01-05}
entity: {name: customer, key: customer_id}
sources:
  loans:
    path: loans.csv
    event_time: decided
    arrival: told
    key: [customer_id, decided]
    columns:
      customer_id: {type: int64, nullable: false}
      decided: {type: timestamp}
      told: {type: timestamp}
      amount: {type: float64}
      closed: {type: timestamp}
      repaid: {type: int64, values: ["0", "1"]}
label: {source: loans, column: repaid, label_time: closed, delay: 30d, max_censored: 0.1}
features:
  loan: {grain: event, source: loans, lookback: 7d, ttl: 7d, columns: {amount: float64}}
training: {embargo: 0d, rounds: 20, params: {min_data_in_leaf: 10}}
gates: {min_rows: 10, min_auc: 0.55, max_calibration_error: 0.5, over_baseline: -0.3}
"""


@dataclass(frozen=True)
class Loan:
    """A decision; its outcome is told `after` it, or never."""

    customer: int
    decided: datetime
    amount: float
    repaid: int
    after: timedelta | None

    @property
    def known(self) -> bool:
        return self.after is not None and self.decided + self.after < AS_OF

    @property
    def mature(self) -> bool:
        return self.decided + DELAY < AS_OF

    def lines(self) -> list[str]:
        """Return the decision as it arrives, and the same row with its outcome later."""
        at = self.decided.isoformat()
        told = [f"{self.customer},{at},{at},{self.amount:.2f},,"]
        if self.after is not None:
            closed = (self.decided + self.after).isoformat()
            told.append(f"{self.customer},{at},{closed},{self.amount:.2f},{closed},{self.repaid}")
        return told


def drawn() -> list[Loan]:
    """Return loans of which those that fail tell so within days: the early outcomes of a young
    cohort are nearly all bad.
    """
    draw = random.Random(48)
    loans = []
    for number in range(WEEKS * EACH):
        decided = FIRST + number * timedelta(days=7) / EACH
        amount = draw.gauss(100, 30)
        repaid = int(draw.random() < 1 / (1 + 2.718 ** ((amount - 100) / 12)))
        after: timedelta | None = (
            timedelta(days=draw.uniform(25, 29)) if repaid else timedelta(days=draw.uniform(1, 5))
        )
        loans.append(
            Loan(number % 300, decided, amount, repaid, None if draw.random() < 0.03 else after)
        )
    return loans


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The last week trained and judged by the real stages."""
    home = tmp_path_factory.mktemp("loans") / "home"
    (home / "usecases").mkdir(parents=True)
    (home / "usecases" / "loans.yaml").write_text(YAML)
    lines = [line for loan in drawn() for line in loan.lines()]
    (home / "usecases" / "loans.csv").write_text(
        "\n".join(["customer_id,decided,told,amount,closed,repaid", *lines]) + "\n"
    )
    made = Installation(home, "loans")
    reports = made.load("2026-01-05", KEY)
    assert {report.state for report in reports} == {"done"}
    made.day(KEY, ["train_model", "evaluate_model"])
    return made


def test_no_immature_row_is_judged_on_however_early_its_outcome_came(judged: Installation) -> None:
    """Fault 48."""
    loans = drawn()
    early = [loan for loan in loans if loan.known and not loan.mature]
    assert len(early) > 50
    # What a naive evaluation would see of the young cohort.
    assert sum(loan.repaid for loan in early) / len(early) < 0.3
    (model,) = judged.records.models.of("loans")
    kept = model.manifest["training_set"]
    rows = judged.lake.read(kept["table"], keys=[KEY], version=kept["table_version"]).to_pylist()
    expected = {
        (loan.customer, loan.decided): loan.repaid for loan in loans if loan.mature and loan.known
    }
    assert {(row["customer_id"], row["event_timestamp"]): row["label"] for row in rows} == expected
    evaluation = [row for row in rows if row["split"] == splits.EVALUATION]
    assert evaluation
    assert max(row["event_timestamp"] for row in evaluation) + DELAY < AS_OF
    share = sum(row["label"] for row in evaluation) / len(evaluation)
    assert 0.35 < share < 0.65  # the cohort's own, not that of the outcomes that come early


def test_the_verdict_and_the_report_tell_how_many_were_left_out(judged: Installation) -> None:
    loans = drawn()
    immature = sum(not loan.mature for loan in loans)
    censored = sum(loan.mature and not loan.known for loan in loans)
    result = judged.result("evaluate_model", KEY)
    told: dict[str, Any] = result.outputs["counts"]
    assert (told["immature"], told["censored"]) == (immature, censored)
    assert censored > 0
    assert result.outputs["verdict"] == "pass", result.outputs["reasons"]
    (entry,) = judged.records.audit.entries("loans", action="model.judged")
    assert (entry.details["counts"]["immature"], entry.details["counts"]["censored"]) == (
        immature,
        censored,
    )
    assert (
        f"{immature:,} immature, {censored:,} censored"
        in Path(result.outputs["report"]).read_text()
    )
