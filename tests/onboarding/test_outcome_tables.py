"""Outcomes in a table of their own: found, joined by the id, and drafted as SQL that runs."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.onboarding import check
from include.onboarding.answers import NOTHING, Answers
from include.onboarding.draft import Draft, draft_table
from include.onboarding.outcome_tables import arrange_tables
from include.onboarding.profile import Table
from include.onboarding.try_data import try_data
from tests.builders.drafted import Rows

N = 240
IDS = [f"C{5_000 + n}" for n in range(N)]
DAYS = [date(2024, 1, 1) + timedelta(days=n // 4) for n in range(N)]
ONES = [n * 7 % 10 < 3 for n in range(N)]
CUSTOMERS: Rows = {
    "customer_id": IDS,
    "signed_up_on": DAYS,
    "default": ["yes" if n == 9 else "no" for n in range(N)],  # a fact that sounds of an outcome
    "visits": [n * 13 % 70 for n in range(N)],
}


def table_of(folder: Path, name: str, rows: Rows) -> Table:
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return Table(path)


def drafted(
    folder: Path, outcomes: Rows, customers: Rows = CUSTOMERS, answers: Answers = NOTHING
) -> tuple[Draft, UseCase]:
    main, apart = table_of(folder, "customers", customers), table_of(folder, "outcomes", outcomes)
    found = arrange_tables([main, apart], answers)
    assert found.main is main
    assert found.outcomes is not None
    made = draft_table(main, answers, outcomes=(found.outcomes, "outcomes.csv"))
    (folder / "customers.yaml").write_text(made.text)
    use_case = use_case_file.parse(made.text, folder=folder)
    assert list(check.find_problems(use_case)) == []
    return made, use_case


def test_outcomes_by_another_name_of_the_id_are_joined_and_their_share_is_said(
    tmp_path: Path,
) -> None:
    outcomes: Rows = {
        "client": IDS[:-3][::-1],
        "y": ["yes" if one else "no" for one in ONES[:-3][::-1]],
    }
    made, case = drafted(tmp_path, outcomes)
    assert case.label.sql is not None
    assert case.sources["outcomes"].kind == "static"
    assert case.sources["outcomes"].columns["customer_id"].header == "client"
    assert set(case.feature_types) == {"default", "visits"}
    assert made.decisions == (N, pytest.approx(sum(ONES[:-3]) / (N - 3)))
    assert '"client" has 98.8% of the values of "customer_id"' in made.text
    joined = made.as_json()["joined"]
    assert isinstance(joined, list)
    assert joined[0]["values_found"] == 1.0
    trial = try_data(case, Settings(home=tmp_path / "var"))
    assert trial.rate is not None
    assert (trial.rows, trial.censored) == (N - 3, 3)
    assert round(trial.rate * trial.rows) == sum(ONES[:-3])


def test_the_time_of_an_outcome_gives_the_delay_and_nothing_is_known_before_it(
    tmp_path: Path,
) -> None:
    outcomes: Rows = {
        "client": IDS,
        "churned": [int(one) for one in ONES],
        "closed_on": [day + timedelta(days=n % 9 + 1) for n, day in enumerate(DAYS)],
    }
    _, case = drafted(tmp_path, outcomes)
    assert case.label.delay == timedelta(days=9)
    assert case.sources["outcomes"].kind == "events"
    trial = try_data(case, Settings(home=tmp_path / "var"))
    assert trial.censored == 0
    assert trial.rows > N / 2
    assert not trial.problems


def test_a_table_without_a_time_stands_for_its_day_with_its_outcomes(tmp_path: Path) -> None:
    customers = {name: rows for name, rows in CUSTOMERS.items() if name != "signed_up_on"}
    outcomes: Rows = {"customer_id": IDS, "won": [int(one) for one in ONES]}
    answers = Answers(snapshot=date(2024, 5, 1))
    _, case = drafted(tmp_path, outcomes, customers, answers)
    trial = try_data(case, Settings(home=tmp_path / "var"))
    assert trial.rows == N


def test_an_id_with_several_outcomes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    outcomes: Rows = {"client": [*IDS, *IDS[:9]], "y": [int(one) for one in [*ONES, *ONES[:9]]]}
    customers = CUSTOMERS | {"default": [None] * N}
    with pytest.raises(ConfigError, match=r"9 rows repeat the 'client' of another.*one outcome"):
        drafted(tmp_path, outcomes, customers)


@pytest.mark.slow
@pytest.mark.parametrize("only_ones", [True, False])
def test_outcomes_apart_that_come_too_late_count_within_a_time(
    tmp_path: Path, only_ones: bool
) -> None:
    late = [DAYS[n] + timedelta(days=5 if n % 3 else 90) for n in range(N)]
    times = [day if one or not only_ones else None for day, one in zip(late, ONES, strict=True)]
    outcomes: Rows = {"client": IDS, "y": [int(one) for one in ONES], "closed_on": times}
    made, case = drafted(tmp_path, outcomes)
    assert case.sources["outcomes"].kind == ("static" if only_ones else "events")
    assert "ASK: Within how long does the outcome count?" in made.text
    assert case.label.delay == timedelta(days=15 if only_ones else 8)
    trial = try_data(case, Settings(home=tmp_path / "var"))
    # 90 days later is too late, and so a 0.
    ones = [one and bool(n % 3) for n, one in enumerate(ONES)]
    assert trial.censored == 0
    assert trial.rows + (trial.immature or 0) == N
    assert trial.rate == pytest.approx(sum(ones[: trial.rows]) / trial.rows)
