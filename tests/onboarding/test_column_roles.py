"""What a draft takes each column for: checked against the rows, or asked for."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from include.config import use_case_file
from include.errors import ConfigError
from include.onboarding import check, draft
from include.onboarding.answers import Answers
from include.onboarding.profile import Table
from include.training import column_leaks
from include.training.free_text import hardly_repeats
from tests.builders.drafted import N, Rows, days, drafted, orders


def test_orders_of_one_customer_on_one_day_make_each_order_an_entity(tmp_path: Path) -> None:
    rows = orders(event_time=[date(2025, 1, 1) + timedelta(days=n // 30) for n in range(N)])
    use_case, text = drafted(tmp_path, rows)
    assert (use_case.entity.key, use_case.sources["rows"].key) == ("order_id", ["order_id"])
    assert "customer_id" not in use_case.feature_types
    assert "guessed: an entity a row, since" in text
    assert "rows share 'customer_id' and 'event_time' with another" in text
    with pytest.raises(
        ConfigError,
        match=r"a finer time with --time, or with --entity a column .*, such as 'order_id'",
    ):
        drafted(tmp_path, rows, key="customer_id")
    without = {name: values for name, values in rows.items() if name != "order_id"}
    with pytest.raises(
        ConfigError,
        match=r"a finer time with --time, or with --entity a column that each row has of its own$",
    ):
        drafted(tmp_path, without, key="customer_id")
    assert drafted(tmp_path, without)[0].entity.key == "row_id"


def test_the_draft_says_how_many_decisions_it_makes_and_how_many_are_one(tmp_path: Path) -> None:
    rows = orders()
    rows["returned"][:10] = [None] * 10
    _, text = drafted(tmp_path, rows)
    rate = sum(rows["returned"][10:]) / (N - 10)
    assert (
        f'# Its rows make {N} decisions; {rate:.1%} of those with an outcome have the outcome "1" '
        'of "returned".' in text
    )


@pytest.mark.parametrize(
    ("times", "event", "others"),
    [
        (
            {"birth_date": days(timedelta(days=9), date(1950, 1, 1)), "signup_date": days()},
            "signup_date",
            '"birth_date"',
        ),
        ({"status_date": days(), "applied": days()}, "applied", '"status_date"'),
        ({"closedAt": days(), "someDay": days()}, "someDay", '"closedAt"'),
    ],
)
def test_the_time_of_a_row_is_no_birth_and_no_outcome(
    tmp_path: Path, times: Rows, event: str, others: str
) -> None:
    use_case, text = drafted(tmp_path, orders(event_time=[], **times))
    assert use_case.sources["rows"].event_time == event
    assert f"others: {others}" in text


@pytest.mark.parametrize(
    "name", ["reservation_status_date", "date_of_birth", "end_date", "result time"]
)
def test_a_time_of_the_outcome_or_of_a_birth_alone_is_asked_about(
    tmp_path: Path, name: str
) -> None:
    rows = orders(event_time=[], **{name: days()})
    with pytest.raises(
        ConfigError,
        match=f"'{name}' .* name the column that says when each row happened with --time",
    ):
        drafted(tmp_path, rows)
    use_case, text = drafted(tmp_path, rows, time=name)
    assert "# given: when the row happened" in text
    assert use_case.entity.key == "customer_id"


@pytest.mark.parametrize("name", ["__index_level_0__", "Unnamed: 0", "unnamed_0", "index"])
def test_the_place_of_a_row_in_a_file_is_no_feature_no_time_and_no_key(
    tmp_path: Path, name: str
) -> None:
    use_case, text = drafted(tmp_path, orders(order_id=[], **{name: list(range(N))}))
    assert use_case.features["row_features"].columns == {"amount": "float64"}
    assert use_case.sources["rows"].key == ["customer_id", "event_time"]
    assert "left out (the place of a row in a file)" in text


def test_a_unique_id_ranks_above_other_columns_that_repeat_and_weeks_are_no_ids(
    tmp_path: Path,
) -> None:
    rows = orders(
        customer_id=[], shop_id=[n % 30 for n in range(N)], week_number=[n % 53 for n in range(N)]
    )
    assert drafted(tmp_path, rows)[0].entity.key == "order_id"
    without = {n: values for n, values in rows.items() if n not in ("order_id", "shop_id")}
    use_case, text = drafted(tmp_path, without)
    assert use_case.entity.key == "row_id"
    assert use_case.sources["rows"].columns["row_id"].digest == "row"
    assert "no column names whom a row is about; name one with --entity" in text


def test_names_of_ours_are_renamed(tmp_path: Path) -> None:
    ours = ["rule", "Split", "label", "partition", "created_timestamp", "source_row", "__own"]
    use_case, _ = drafted(tmp_path, orders(**{name: [n % 7 for n in range(N)] for name in ours}))
    columns = use_case.sources["rows"].columns
    assert {column.header or name for name, column in columns.items()} >= set(ours)
    assert {"rule_value", "Split_value", "label_value", "own"} <= use_case.feature_types.keys()


def test_letters_of_other_scripts_are_written_out(tmp_path: Path) -> None:
    use_case, _ = drafted(
        tmp_path, orders(**{"Größe in m": [n % 9 for n in range(N)]}), name="Köln Übersicht"
    )
    assert use_case.name == "koeln_uebersicht"
    assert use_case.sources["rows"].columns["Groesse_in_m"].header == "Größe in m"


@pytest.mark.parametrize(
    ("dates", "cadence"),
    [
        ([date(2015 + n // 12, n % 12 + 1, 1) for n in range(120)], "month"),
        ([date(2024, 1, 1) + timedelta(weeks=n) for n in range(20)], "week"),
        ([date(2024, 1, 1) + timedelta(days=n) for n in range(60)], "day"),
    ],
)
def test_the_cadence_is_the_rhythm_of_the_dates(
    tmp_path: Path, dates: list[date], cadence: str
) -> None:
    rows = orders(event_time=[dates[n % len(dates)] for n in range(N)], customer_id=[])
    assert drafted(tmp_path, rows)[0].cadence == cadence


def test_features_that_sound_of_after_the_outcome_are_marked(tmp_path: Path) -> None:
    more = {
        name: [n % 5 for n in range(N)]
        for name in ("days_overdue", "ChargedOffAmount", "final_grade", "channel_nr_of_visits")
    }
    _, text = drafted(tmp_path, orders(**more))
    marked = [
        line.split(":")[0].strip()
        for line in text.splitlines()
        if "sounds written after the outcome" in line and "#" not in line[:7]
    ]
    assert marked == ["days_overdue", "ChargedOffAmount", "final_grade"]


def test_draft_and_training_judge_free_text_by_one_rule(tmp_path: Path) -> None:
    # 49 % of all rows differ, but all of the first half do.
    titles = [f"title {n % 147}" for n in range(N)]
    _, text = drafted(tmp_path, orders(title=titles))
    assert "# title: left out (different on most rows, as names and free text are)" in text
    first = pa.table({"title": titles[: N // 2], "customer_id": list(range(N // 2))})
    assert hardly_repeats(N // 2, 147)
    assert column_leaks.is_id(first, "title", "customer_id")


def test_the_wording_of_min_rows_is_true(tmp_path: Path) -> None:
    rows = orders(returned=[int(n % 2 == 0) for n in range(N)])
    use_case, text = drafted(tmp_path, rows)
    assert use_case.gates.min_rows == N // 2 // 10
    assert "half of a fifth of the rarer outcome" in text


@pytest.mark.parametrize("stem", ["birth", "closing"])
def test_a_date_in_parts_that_is_a_birth_or_an_outcome_is_not_the_decision(
    tmp_path: Path, stem: str
) -> None:
    parts = {"year": [d.year for d in days()], "month": [d.month for d in days()]}
    rows = orders(**{f"{stem}_{name}": values for name, values in parts.items()})
    assert drafted(tmp_path, rows)[0].sources["rows"].event_time == "event_time"
    with pytest.raises(ConfigError, match="--snapshot"):
        drafted(tmp_path, {name: v for name, v in rows.items() if name != "event_time"})


def test_year_month_and_day_less_a_lead_time_are_the_time_of_the_decision(tmp_path: Path) -> None:
    rows = orders(
        event_time=[],
        stay_year=[d.year for d in days()],
        stay_month=[d.strftime("%B") for d in days()],
        stay_day_of_month=[d.day for d in days()],
        lead_time=[n % 50 for n in range(N)],
        reservation_status_date=[d + timedelta(days=60) for d in days()],
    )
    use_case, _ = drafted(tmp_path, rows)
    source = use_case.sources["rows"]
    assert source.event_time == "decided_on"
    assert str(source.columns["decided_on"].sql).endswith(" - CAST(lead_time AS INTEGER)")
    assert use_case.label.label_time == "reservation_status_date"
    assert drafted(tmp_path, rows, time="stay")[0].sources["rows"].event_time == "stay"


def test_a_table_without_a_time_stands_for_the_day_that_is_given(tmp_path: Path) -> None:
    rows = orders(event_time=[], order_id=[], customer_id=[])
    with pytest.raises(ConfigError, match="write --snapshot DATE"):
        drafted(tmp_path, rows)
    text = draft.draft_table(Table(tmp_path / "t.csv"), Answers(snapshot=date(2024, 5, 1))).text
    use_case = use_case_file.parse(text, folder=tmp_path)
    assert list(check.find_problems(use_case)) == []
    assert use_case.sources["rows"].snapshot == date(2024, 5, 1)
    assert use_case.history.first == use_case.history.last == date(2024, 5, 1)
    assert use_case.training.split.by == "hash"
    assert use_case.entity.key == "row_id"
    assert "No time in the data: nothing here says how the model will do later." in text


def test_an_object_of_json_is_left_out_with_how_to_take_a_value_of_it(tmp_path: Path) -> None:
    loans = [json.dumps({"amount": n * 7 % 90, "term": 12}) for n in range(N)]
    case, text = drafted(tmp_path, orders(loan=loans))
    assert "loan" not in case.feature_types
    assert "# loan: left out (an object of JSON; one of its values is a feature as a" in text
    assert "json_extract_string(column, '$.amount')" in text
    computed = text.replace(
        "      loan: {type: string}",
        "      loan: {type: string}\n      loan_amount: {type: int64, sql: "
        "\"CAST(json_extract_string(loan, '$.amount') AS BIGINT)\"}",
    )
    assert computed != text
    assert list(check.find_problems(use_case_file.parse(computed, folder=tmp_path))) == []
