"""Further tables: joined by values, each with the times that it has."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.onboarding import check
from include.onboarding.answers import NOTHING, Answers
from include.onboarding.draft import Draft, draft_table
from include.onboarding.joins import best_match
from include.onboarding.outcome_tables import arrange_tables
from include.onboarding.profile import Table
from include.onboarding.try_data import try_data
from tests.builders.drafted import Rows

N = 200
IDS = [5_000 + n for n in range(N)]
DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(N)]
LABELS = [int(n * 7 % 10 < 3) for n in range(N)]
OUTCOMES: Rows = {"loan": IDS, "decided_on": DAYS, "repaid": LABELS}


def table_of(folder: Path, name: str, rows: Rows) -> Table:
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return Table(path)


def joined(folder: Path, *others: Table, answers: Answers = NOTHING) -> tuple[Draft, UseCase]:
    main = table_of(folder, "outcomes", OUTCOMES)
    found = arrange_tables([*others, main], answers)
    assert (found.main, found.outcomes) == (main, None)
    paths = [(other, other.path.name) for other in others]
    drafted = draft_table(main, answers, others=paths)
    use_case = use_case_file.parse(drafted.text, folder=folder)
    assert list(check.find_problems(use_case)) == []
    return drafted, use_case


def test_the_label_stands_in_one_file_and_the_decisions_rows_in_another(tmp_path: Path) -> None:
    rows: Rows = {
        "loan_number": IDS,
        "decided_on": DAYS,
        "amount": [n % 70 for n in range(N)],
        "recovered": [label * 5 + n % 2 for n, label in enumerate(LABELS)],
    }
    drafted, case = joined(tmp_path, table_of(tmp_path, "applications", rows))
    assert case.label.source == "rows"
    assert case.sources["applications"].columns["loan"].header == "loan_number"
    view = case.features["applications_features"]
    assert (view.source, view.visible) == ("applications", "with_request")
    assert case.feature_types == {"amount": "int64"}  # recovered tells, and sounds late
    assert '"loan_number" has 100.0% of the values of "loan"' in drafted.text
    assert drafted.questions[-1].guess == "recovered"
    told = drafted.as_json()
    assert told["joined"] == [
        {
            "name": "applications",
            "table": str(tmp_path / "applications.csv"),
            "column": "loan_number",
            "values_found": 1.0,
            "values_it_has": 1.0,
        }
    ]
    kept = joined(
        tmp_path, table_of(tmp_path, "applications", rows), answers=Answers(written_later=())
    )[1]
    assert set(kept.feature_types) == {"amount", "recovered"}


def test_events_of_other_moments_are_known_at_as_of_and_a_table_without_time_is_static(
    tmp_path: Path,
) -> None:
    events: Rows = {
        "customer": [IDS[n // 2] for n in range(N)],
        "seen_at": [DAYS[0] + timedelta(days=n * 3 % 190) for n in range(N)],
        "pages": [n % 9 for n in range(N)],
    }
    facts: Rows = {"loan": IDS, "region": [f"r{n % 4}" for n in range(N)]}
    drafted, case = joined(
        tmp_path, table_of(tmp_path, "visits", events), table_of(tmp_path, "facts", facts)
    )
    assert case.features["visits_features"].visible == "at_as_of"
    assert case.sources["visits"].key == ["loan", "seen_at"]
    assert case.sources["facts"].kind == "static"
    assert case.features["facts_features"].grain == "snapshot"
    assert case.feature_types == {"pages": "int64", "region": "string"}
    match = drafted.joined[0].match
    assert (match.found_here, match.found_there) == (0.5, 1.0)


def test_a_table_that_shares_no_values_is_refused(tmp_path: Path) -> None:
    rows: Rows = {"other": list(range(N)), "seen_at": DAYS, "pages": [n % 9 for n in IDS]}
    with pytest.raises(ConfigError, match=r"no column holds the values of 'loan' of outcomes\.csv"):
        joined(tmp_path, table_of(tmp_path, "visits", rows))


def test_tables_without_an_outcome_are_refused_each_with_its_reason(tmp_path: Path) -> None:
    rows: Rows = {"loan": IDS, "decided_on": DAYS, "pages": [n % 9 for n in IDS]}
    tables = [table_of(tmp_path, name, rows) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"(?s)a\.csv: no column holds just 0 and 1.*b\.csv"):
        arrange_tables(tables, NOTHING)


@pytest.mark.slow
def test_decisions_of_one_day_find_the_events_of_the_months_before_them(tmp_path: Path) -> None:
    """History begins with what joins, and its rows live until the last decision."""
    day = date(2024, 7, 1)
    decided = table_of(tmp_path, "decided", OUTCOMES | {"decided_on": [day] * N})
    rows: Rows = {
        "loan": [*IDS, *IDS],
        "posted_at": [day - timedelta(days=90 + n % 60) for n in range(2 * N)],
        "balance": [n * 13 % 90 for n in range(2 * N)],
    }
    statements = table_of(tmp_path, "statements", rows)
    text = draft_table(decided, others=[(statements, "statements.csv")]).text
    case = use_case_file.parse(text, folder=tmp_path)
    assert case.history.first == day - timedelta(days=149)
    assert case.features["statements_features"].ttl >= timedelta(days=150)
    (tmp_path / "decided.yaml").write_text(text)
    trial = try_data(case, Settings(home=tmp_path / "var"))
    assert trial.profile is not None
    assert [(c.name, c.missing) for c in trial.profile.columns] == [("balance", 0.0)]


def test_a_table_is_joined_by_the_column_of_the_same_name_where_others_hold_small_numbers(
    tmp_path: Path,
) -> None:
    """Ids that count from 1 are among the amounts of any table."""
    main = table_of(tmp_path, "outcomes", {**OUTCOMES, "loan": list(range(1, N + 1))})
    few, pages = [n % 12 + 1 for n in range(N)], list(range(1, N + 1))
    rows: Rows = {"loan": few, "seen_at": DAYS, "pages": pages}
    visits = table_of(tmp_path, "visits", rows)
    drafted = draft_table(main, others=[(visits, "visits.csv")])
    assert drafted.joined[0].match.there.header == "loan"
    # Of two columns called `id` each has the ids of its own table's rows.
    main = table_of(tmp_path, "outcomes", {"id": IDS, "repaid": LABELS})
    more: Rows = {"id": list(range(N)), "loan_ref": IDS}
    assert best_match(main, main.columns[:1], table_of(tmp_path, "m", more)).there.header != "id"


def test_ids_that_are_written_otherwise_are_told_and_no_other_column_is_taken_for_them(
    tmp_path: Path,
) -> None:
    main = table_of(tmp_path, "outcomes", {**OUTCOMES, "loan": list(range(1, N + 1))})
    padded = [f"{n:05}" for n in range(1, N + 1)]
    rows: Rows = {"loan": padded, "seen_at": DAYS, "pages": [n % 12 + 1 for n in range(N)]}
    visits = table_of(tmp_path, "visits", rows)
    says = "'loan' has 0.0% of the values of 'loan' of outcomes.csv .such as '00001', and there '1'"
    with pytest.raises(ConfigError, match=f"{says}.*write the ids alike"):
        draft_table(main, others=[(visits, "visits.csv")])


def test_numbers_with_a_point_are_no_ids_where_ids_are_texts(tmp_path: Path) -> None:
    """A column with gaps comes as 1001.0 out of pandas, which is 1001 as a number alone."""
    texts = [f"{n}" if n % 10 else f"A{n}" for n in IDS]
    main = table_of(tmp_path, "outcomes", {**OUTCOMES, "loan": texts})
    facts: Rows = {"loan": [f"{n}.0" for n in IDS], "region": [f"r{n % 4}" for n in range(N)]}
    says = r"'loan' has 0.0% of the values .*such as '5000.0', and there '5001'"
    with pytest.raises(ConfigError, match=says):
        draft_table(main, others=[(table_of(tmp_path, "facts", facts), "facts.csv")])
    numbers = table_of(tmp_path, "numbers", {**OUTCOMES})
    drafted = draft_table(numbers, others=[(table_of(tmp_path, "facts", facts), "facts.csv")])
    assert drafted.joined[0].match.found_here == 1


def test_the_ids_of_the_first_table_are_read_once_for_all_columns_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a column would be minutes for a wide table of a million ids."""
    main = table_of(tmp_path, "outcomes", OUTCOMES)
    wide: Rows = {"loan": IDS} | {f"n{place}": IDS for place in range(6)}
    other = table_of(tmp_path, "wide", wide | {"note": [f"of {n}" for n in IDS]})
    asked: list[str] = []
    rows_of = main.rows_of

    def rows_asked(query: str) -> list[tuple[Any, ...]]:
        asked.append(query)
        return rows_of(query)

    monkeypatch.setattr(main, "rows_of", rows_asked)
    assert best_match(main, main.columns[:1], other).there.header == "loan"
    assert len(asked) == 2  # as numbers, and as texts


@pytest.mark.parametrize("names", [("loan-no", "loan_no"), ("loan_no", "loan-no")])
def test_of_two_columns_of_the_same_name_the_one_with_the_ids_joins(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """Another table's own count beside them, once two were put together."""
    main = table_of(tmp_path, "outcomes", {"loan_no": IDS, "repaid": LABELS})
    both = {"loan_no": IDS, "loan-no": [n + 1 for n in range(N)]}
    other = table_of(tmp_path, "both", {name: both[name] for name in names})
    assert best_match(main, main.columns[:1], other).there.header == "loan_no"


def test_a_name_in_other_letters_is_a_name_too(tmp_path: Path) -> None:
    """Of `客户ID` and `页ID` nothing but `id` was left, which every table has."""
    main = table_of(tmp_path, "outcomes", {"客户ID": list(range(1, N + 1)), "repaid": LABELS})
    rows: Rows = {"客户ID": [n % 12 + 1 for n in range(N)], "页ID": list(range(1, N + 1))}
    other = table_of(tmp_path, "visits", rows)
    assert best_match(main, main.columns[:1], other).there.header == "客户ID"
