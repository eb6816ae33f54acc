"""Written forms of numbers: marks, percent signs, units, and what has two meanings."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config import use_case_file
from tests.builders.drafted import N, drafted, guessed, numbers, orders


@pytest.mark.parametrize("form", ["1\u2019999.5", "1'999.5"])
def test_a_typographic_apostrophe_is_an_apostrophe(form: str) -> None:
    assert guessed(numbers(form))[0] == {"type": "float64", "thousands": "'"}


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u202f"])
def test_thousands_are_divided_by_blanks_of_any_width(blank: str) -> None:
    assert guessed(numbers(f"1{blank}999,5"))[0] == {
        "type": "float64",
        "decimal": ",",
        "thousands": " ",
    }


def test_a_zero_before_the_comma_tells_decimals_from_thousands() -> None:
    assert guessed([*numbers("1,999"), "0,5"])[0] == {"type": "float64", "decimal": ","}
    column, notes = guessed(numbers("1,999"))
    assert column == {"type": "string"}
    assert "can be read in two ways" in notes


def test_codes_are_no_numbers_in_a_written_form() -> None:
    assert guessed(numbers("1,999"), "order_no")[0] == {"type": "string"}


def test_decimals_of_three_digits_are_questioned() -> None:
    assert "where 1.234 means 1234, write thousands" in guessed(numbers("1.999"))[1]
    assert guessed([*numbers("1.999"), "0.5"])[1] == ""


def test_minus_999_far_below_all_numbers_is_no_value() -> None:
    values = [f"{number / 10}" for number in range(200)] + ["-999.0"] * 30 + ["-999"] * 9
    column, notes = guessed(values)
    assert column == {"type": "float64", "null_values": ["-999.0", "-999"]}
    assert "taken for no value" in notes
    assert guessed([str(n) for n in range(-1200, 1200, 7)] + ["-999"] * 30)[0] == {"type": "int64"}
    assert guessed(["0", "1", "-999"] * 9)[0] == {"type": "int64"}


def test_999_far_above_all_numbers_may_be_one_and_is_noted() -> None:
    column, notes = guessed([str(n % 28) for n in range(90)] + ["999"] * 90)
    assert column == {"type": "int64"}
    assert "999 (90 times) stands far above all others: if it means none" in notes
    assert guessed([str(n * 100) for n in range(90)] + ["999"] * 90)[1] == ""


def test_minus_9_below_numbers_from_0_on_may_be_a_code_and_is_asked(tmp_path: Path) -> None:
    values = [str(n % 30) for n in range(90)] + ["-9"] * 8 + ["-8"] * 2
    column, notes = guessed(values)
    assert column == {"type": "int64"}
    assert "-9 (8.0%), -8 (2.0%) below all others, which are 0 or more: may mean no value" in notes
    # A step below 0 is one of a scale, and so is what stands among other negative numbers.
    for others in (["-1"] * 9, ["-9"] * 9 + ["-20"]):
        assert guessed([str(n % 30) for n in range(90)] + others)[1] == ""
    trades = [-9 if n % 20 == 0 else n % 40 for n in range(N)]
    use_case, text = drafted(tmp_path, orders(trades=trades, months=trades))
    assert use_case.sources["rows"].null_values == []
    line = next(line for line in text.splitlines() if "# ASK: do these mean no value?" in line)
    assert line.strip().startswith('# null_values: ["-9"]  #')
    assert 'in "trades", "months"' in line
    said = use_case_file.parse(text.replace(line, line.replace("# null", "null")), folder=tmp_path)
    assert said.sources["rows"].null_values == ["-9"]
