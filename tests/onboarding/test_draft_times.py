"""The times of a draft: outcomes that take too long to wait for are asked for within a time."""

from __future__ import annotations

import csv
import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.errors import ConfigError
from include.onboarding import check
from include.onboarding.answers import Answers
from include.onboarding.draft import draft_table
from include.onboarding.profile import Table
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


@pytest.mark.slow
def test_who_has_not_left_has_no_time_and_is_a_0_once_the_time_is_over(tmp_path: Path) -> None:
    left = [n % 4 == 0 for n in range(N)]
    made = [FIRST + timedelta(days=n // 2) for n in range(N)]
    rows: Rows = {
        "customer_id": list(range(N)),
        "signup_date": made,
        "visits": [n * 7 % 31 for n in range(N)],
        "churned_at": [
            day + timedelta(days=2 + n % 9) if one else None
            for n, (day, one) in enumerate(zip(made, left, strict=True))
        ],
        "churned": [int(one) for one in left],
    }
    case, text = drafted(tmp_path, rows, name="leavers")
    assert "ASK: Within how long does the outcome count? Only the outcome" in text
    assert "14 days 100%" in text
    assert case.label.delay == timedelta(days=15)
    (tmp_path / "leavers.yaml").write_text(text)
    trial = try_data(case, Settings(home=tmp_path / "var"))
    old = [one for day, one in zip(made, left, strict=True) if day < made[-1] - timedelta(days=14)]
    assert (trial.rows, trial.censored) == (len(old), 0)
    assert trial.rate == pytest.approx(sum(old) / len(old))


def test_the_time_within_which_an_outcome_counts_is_said_by_an_option(tmp_path: Path) -> None:
    table = Table(written(tmp_path, loans(latest=9_000)))
    text = draft_table(table, Answers(within="400d")).text
    assert "INTERVAL 400 DAY" in text
    assert "# given: within 400d.\n" in text
    assert "ASK: Within" not in text
    known = Answers(outcome="charge_date")
    assert "INTERVAL 1826 DAY" in draft_table(table, known).text  # its column is no time to wait
    assert "INTERVAL" not in draft_table(table, Answers(within="ever")).text
    rows = loans(latest=9_000)
    both = zip(rows["charge_date"], rows["charged_off"], strict=True)
    rows["charge_date"] = [day if one else None for day, one in both]
    table = Table(written(tmp_path, rows))
    with pytest.raises(ConfigError, match=r"within 'ever': only the outcome 1 has a time"):
        draft_table(table, Answers(within="ever"))


def written(folder: Path, rows: Rows) -> Path:
    path = folder / "loans.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return path
