"""Which column is the outcome, and which of its values counts as 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError
from tests.builders.drafted import N, drafted, orders


def test_two_columns_that_could_be_the_outcome_are_both_named(tmp_path: Path) -> None:
    rows = orders(
        churned=[n % 2 for n in range(N)], paid=[int(n % 3 == 0) for n in range(N)], returned=[]
    )
    with pytest.raises(
        ConfigError, match=r"\['churned', 'paid'\] could each be the label; name it with --label"
    ):
        drafted(tmp_path, rows)
    assert drafted(tmp_path, rows, label="paid")[0].label.column == "paid"


@pytest.mark.parametrize(
    ("values", "positives"),
    [
        (["1.0", "0.0", "0.0", ""], []),
        (["yes", "no"], []),
        (["<=50K", ">50K", "<=50K"], [">50K"]),
        (["<=50K", ">50K", "<=50K.", ">50K.", "<=50K"], [">50K", ">50K."]),
        (["1", "2", "1"], ["2"]),
        (["good", "bad", "good"], ["bad"]),
    ],
)
def test_a_label_is_any_column_of_two_values(
    tmp_path: Path, values: list[str], positives: list[str]
) -> None:
    column = [values[n % len(values)] for n in range(N)]
    use_case, text = drafted(tmp_path, orders(y_income=column), label="y_income")
    assert sorted(use_case.label.positives) == positives
    one = positives or ["1.0", "yes"]
    rate = sum(value in one for value in column) / sum(value != "" for value in column)
    assert f"; {rate:.1%} of those with an outcome" in text
    assert "# given; the score is" in text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([None] * N, "--label 'y_x' has no values"),
        ([0] * N, "--label 'y_x' holds one value only"),
        ([n % 3 for n in range(N)], "--label 'y_x' holds more than two values, such as"),
    ],
)
def test_what_cannot_be_a_label_is_named(tmp_path: Path, values: list[Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        drafted(tmp_path, orders(y_x=values), label="y_x")


def test_a_column_of_one_value_is_named_where_it_would_be_the_label(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no column holds just 0 and 1 .*'returned' hold\(s\) one value only"
    ):
        drafted(tmp_path, orders(returned=[0] * N))


def test_the_last_column_is_taken_where_no_name_says_more(tmp_path: Path) -> None:
    column = ["<=50K" if n % 4 else ">50K" for n in range(N)]
    use_case, text = drafted(tmp_path, orders(y_=[], c15=column))
    assert use_case.label.column == "c15"
    assert "# guessed: the last column, and it holds two values" in text


def test_an_outcome_of_several_states_is_named_with_its_values(tmp_path: Path) -> None:
    states = [["Charged Off", "Current", "Fully Paid"][n % 3] for n in range(N)]
    with pytest.raises(ConfigError, match=r"'loan_status' has 3 different values.*'Charged Off'"):
        drafted(tmp_path, orders(returned=[], y_none=[None] * N, loan_status=states))
