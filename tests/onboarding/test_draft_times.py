"""The times of a draft: outcomes that take too long to wait for are asked for within a time."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

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


HOURS = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(1_200)]


def visits(times: Sequence[datetime], **more: list[Any]) -> Rows:
    """Return visits at some times, each with an outcome."""
    count = range(len(times))
    return {
        "visit_id": list(count),
        "customer_id": [n * 7 % 150 for n in count],
        "event_time": [time.isoformat() for time in times],
        "amount": [n * 37 % 91 for n in count],
        **more,
        "returned": [n * 13 % 5 // 4 for n in count],
    }


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({7: "2099-12-31"}, "1 row(s) after now"),
        (dict.fromkeys(range(0, 1_200, 30), "1970-01-01"), "40 row(s) at 1970-01-01 00:00"),
        ({500: "2005-01-07"}, "1 row(s) far from all others"),
        ({3: "2099-01-01", 900: "1970-01-01"}, "after now, 1 row(s) at 1970-01-01 00:00"),
    ],
)
def test_a_mistyped_time_decides_nothing(tmp_path: Path, odd: dict[int, str], says: str) -> None:
    times = [
        datetime.fromisoformat(odd[n]).replace(tzinfo=UTC) if n in odd else time
        for n, time in enumerate(HOURS)
    ]
    case, text = drafted(tmp_path, visits(times))
    usual, other = drafted(tmp_path, visits(HOURS))
    assert (case.cadence, case.history) == ("day", usual.history)
    assert case.features["row_features"].lookback == usual.features["row_features"].lookback
    (line,) = (line for line in text.splitlines() if line.startswith("    event_time:"))
    assert line.endswith(says)
    assert "left out" not in other.partition("columns:")[0]
    assert "max_bad" not in text


def test_a_mistyped_arrival_makes_no_delay(tmp_path: Path) -> None:
    known = [(time + timedelta(hours=3)).isoformat() for time in HOURS]
    known[5] = "2099-12-31T00:00:00+00:00"
    made = draft_table(
        _table(tmp_path, visits(HOURS, created_at=known)), Answers(known="created_at")
    )
    assert "cadence: day" in made.text
    assert "last: 2025-02-20" in made.text
    assert "  delay: 1d" in made.text


def test_times_to_come_stay_where_they_are_most(tmp_path: Path) -> None:
    later = [time.replace(year=2095) for time in HOURS]
    case, text = drafted(tmp_path, visits(later))
    assert case.history.first == date(2095, 1, 1)
    assert "after now" not in text


def test_a_history_begins_behind_first_rows_that_would_block(tmp_path: Path) -> None:
    amounts = ["seven" if n < 24 and n % 3 == 0 else n * 37 % 91 for n in range(1_200)]
    case, text = drafted(tmp_path, visits(HOURS, amount=amounts))
    assert case.history.first == date(2025, 1, 2)
    assert "behind periods of few rows that would block: up to 2025-01-01" in text
    assert "max_bad" not in text


def _table(folder: Path, rows: Rows) -> Table:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return Table(path)
