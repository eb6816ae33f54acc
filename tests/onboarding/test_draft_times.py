"""The times of a draft: outcomes that take too long to wait for are asked for within a time."""

from __future__ import annotations

import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.onboarding import check
from include.onboarding.try_data import try_data
from tests.builders.drafted import N, Rows, drafted

FIRST = date(2000, 1, 1)


def loans(latest: int) -> Rows:
    """Return loans of twelve years; every third is charged off, one of them so many days later."""
    rng = random.Random(2)
    made = [FIRST + timedelta(days=15 * n) for n in range(N)]
    lost = [int(n % 3 == 0) for n in range(N)]
    lags = [latest if n == 0 else 100 + n * 9 if n % 3 == 0 else 3_000 for n in range(N)]
    return {
        "loan_id": list(range(N)),
        "approval_date": made,
        "amount": [rng.randrange(1_000) for _ in range(N)],
        "charge_date": [day + timedelta(days=lag) for day, lag in zip(made, lags, strict=True)],
        "charged_off": lost,
    }


@pytest.mark.slow
def test_outcomes_that_take_too_long_are_asked_for_within_a_time(tmp_path: Path) -> None:
    rows = loans(latest=9_000)
    case, text = drafted(tmp_path, rows, name="loans")
    assert case.label.sql is not None
    assert case.label.delay == timedelta(days=1_827)  # half of the outcomes come within 5 years
    assert "ASK: Within how long does the outcome count?" in text
    assert "1095 days 36%, 1826 days 63%" in text
    assert case.history.last == date(2012, 4, 9)  # a week
    assert list(check.find_problems(case)) == []
    (tmp_path / "loans.yaml").write_text(text)
    trial = try_data(case, Settings(home=tmp_path / "var"))
    assert not [each for each in trial.problems if "delay" in each or "mature" in each]
    assert trial.rate is not None
    until = date(2012, 4, 16) - timedelta(days=1_827)
    both = zip(rows["approval_date"], rows["charge_date"], rows["charged_off"], strict=True)
    ones = [one and (known - day).days <= 1_826 for day, known, one in both if day < until]
    assert trial.censored == 0
    assert abs(trial.rows - len(ones)) <= 1
    assert abs(trial.rate - sum(ones) / len(ones)) < 0.02


def test_outcomes_that_can_be_waited_for_keep_their_column(tmp_path: Path) -> None:
    rows = loans(latest=100)
    rows["charge_date"] = [day + timedelta(days=90) for day in rows["approval_date"]]
    case, _ = drafted(tmp_path, rows, name="loans")
    assert (case.label.column, case.label.delay) == ("charged_off", timedelta(days=90))
