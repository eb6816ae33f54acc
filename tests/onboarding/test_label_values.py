"""Which column is the outcome, and which of its values counts as 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError
from include.onboarding.answers import Undecided
from tests.builders.drafted import N, drafted, orders


def test_two_columns_that_could_be_the_outcome_are_both_named(tmp_path: Path) -> None:
    rows = orders(
        churned=[n % 2 for n in range(N)], paid=[int(n % 3 == 0) for n in range(N)], returned=[]
    )
    with pytest.raises(
        ConfigError, match=r"\['churned', 'paid'\] could each be the label, .* name it with --label"
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
        (["ja", "nein", "Ja"], ["Ja", "ja"]),
        (["1", "-1", "1"], ["1"]),
        (["negative", "positive", "positive"], ["positive"]),
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
        (
            [n % 3 for n in range(N)],
            r"--label 'y_x' holds more than two values: '0' \(100\).*--positive 2;",
        ),
        ([n * 1.5 for n in range(N)], "--label 'y_x' holds more than 40 different values"),
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
    with pytest.raises(
        ConfigError, match=r"'loan_status' holds more than two values.*'Charged Off' \("
    ):
        drafted(tmp_path, orders(returned=[], y_none=[None] * N, loan_status=states))


def test_values_that_count_as_1_are_said_by_an_option(tmp_path: Path) -> None:
    states = [["<30", ">30", "NO", "a, b"][n % 4] for n in range(N)]
    rows = orders(returned=[], y_none=[None] * N, readmitted=states)
    with pytest.raises(Undecided, match=r"--label readmitted --positive") as refused:
        drafted(tmp_path, rows)
    assert (refused.value.field, set(refused.value.choices)) == ("positive", {*states})
    use_case, text = drafted(tmp_path, rows, label="readmitted", positive=("<30", ">30"))
    assert sorted(use_case.label.positives) == ["<30", ">30"]
    assert '# given, "NO", "a, b" as 0' in text
    assert "; 50.0% of those with an outcome" in text
    # The column whose name sounds of an outcome need not be named as well.
    assert drafted(tmp_path, rows, positive=("<30",))[0].label.column == "readmitted"
    # Divided at its comma, as an option is.
    use_case, _ = drafted(tmp_path, rows, label="readmitted", positive=("a", "b"))
    assert use_case.label.positives == ["a, b"]
    with pytest.raises(ConfigError, match=r"--positive maybe: .* has no such value; it has"):
        drafted(tmp_path, rows, label="readmitted", positive=("maybe",))
    with pytest.raises(ConfigError, match="some count as 1 and some as 0"):
        drafted(tmp_path, rows, label="readmitted", positive=tuple(dict.fromkeys(states)))


def test_letters_that_look_alike_make_one_value(tmp_path: Path) -> None:
    states = [["nein", "nein", "zur\u00fcck", "zuru\u0308ck"][n % 4] for n in range(N)]
    rows = orders(returned=[], y_none=[None] * N, outcome=states)
    for positive in (None, ("zuru\u0308ck",)):
        use_case, text = drafted(tmp_path, rows, label="outcome", positive=positive)
        assert use_case.label.positives == ["zur\u00fcck"]
        assert "; 50.0% of those with an outcome" in text


def test_of_several_columns_of_two_values_the_last_is_guessed_and_the_others_are_rivals(
    tmp_path: Path,
) -> None:
    flags = {f"flag_{n}": [(row >> n) % 2 for row in range(N)] for n in range(3)}
    use_case, text = drafted(tmp_path, orders(returned=[], y_none=[None] * N, **flags))
    assert use_case.label.column == "flag_2"
    assert '# ASK: Which column is the outcome? Guessed: "flag_2"; or ' in text
    assert "--label" in text


def test_a_name_of_a_state_ranks_above_columns_without_a_name_for_it(tmp_path: Path) -> None:
    state = ["CHGOFF" if n % 3 == 0 else "P I F" for n in range(N)]
    rows = orders(returned=[], MIS_Status=state, revolving=[n % 2 for n in range(N)])
    use_case, _ = drafted(tmp_path, rows)
    assert (use_case.label.column, use_case.label.positives) == ("MIS_Status", ["CHGOFF"])


def test_an_outcome_is_said_in_the_words_of_the_file(tmp_path: Path) -> None:
    """The contract reads yes and no as true and false; a person looks for what the file says."""
    _, text = drafted(tmp_path, orders(y_bought=["Yes" if n % 3 else "No" for n in range(N)]))
    assert 'have the outcome "Yes" of "y_bought"' in text
    assert 'the score is the probability of "Yes"' in text
    _, text = drafted(tmp_path, orders(returned=[n % 2 for n in range(N)]))
    assert 'the score is the probability of "1"' in text


def test_the_first_column_is_taken_where_the_last_is_no_outcome(tmp_path: Path) -> None:
    rows = {"Performance": ["Bad" if n % 3 else "Good" for n in range(N)]}
    use_case, text = drafted(tmp_path, rows | orders(y_=[], trades=list(range(N))))
    assert (use_case.label.column, use_case.label.positives) == ("Performance", ["Good"])
    assert "# guessed: the first column, and it holds two values" in text
    assert '# ASK: Which column is the outcome? Guessed: "Performance"' in text
