"""Guesses of columns: what fits is declared, what cannot be told apart is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError
from include.onboarding import draft, profile
from include.onboarding.column_texts import written
from include.onboarding.profile import Table
from tests.builders.drafted import guessed, numbers, write_table


@pytest.mark.parametrize(
    ("texts", "column"),
    [
        (["1", "2", "-3"], {"type": "int64"}),
        (["1.0", "0.0", "1.0"], {"type": "int64"}),
        (["1.0", "2.5"], {"type": "float64"}),
        ([str(10**18 * 9 + number) for number in range(50)], {"type": "int64"}),
        ([str(10**20 + number) for number in range(50)], {"type": "string"}),
        ([f"{number:05}" for number in range(50)], {"type": "string"}),
        (["yes", "no", "Y"], {"type": "bool"}),
        (
            ["2025-01-01 00:07:00 UTC", "2025-01-02T00:07:00Z", "2025-01-02 01:07:00+01"],
            {"type": "timestamp"},
        ),
        (["2025-01-01", "2025-01-02"], {"type": "date"}),
        (numbers("999,5"), {"type": "float64", "decimal": ","}),
        (numbers("1,999.99"), {"type": "float64", "thousands": ","}),
        (numbers("-2,999,999"), {"type": "int64", "thousands": ","}),
        (numbers("1.999,99"), {"type": "float64", "decimal": ",", "thousands": "."}),
        (numbers("1 999,99"), {"type": "float64", "decimal": ",", "thousands": " "}),
        (numbers("1'999.5"), {"type": "float64", "thousands": "'"}),
        (numbers("99.9 %"), {"type": "float64", "percent": True}),
        (numbers("99,9%"), {"type": "float64", "percent": True, "decimal": ","}),
        (numbers("$1,999.99"), {"type": "float64", "thousands": ",", "unit": "$"}),
        (numbers("-999,99 €"), {"type": "float64", "decimal": ",", "unit": "€"}),
        (numbers("999 EUR"), {"type": "int64", "unit": "EUR"}),
        ([f"{day:02}.01.2025" for day in range(1, 29)], {"type": "date", "dates": "%d.%m.%Y"}),
        ([f"01/{day:02}/2025" for day in range(1, 29)], {"type": "date", "dates": "%m/%d/%Y"}),
        (
            [f"{day}/1/2025 7:05" for day in range(1, 29)],
            {"type": "timestamp", "dates": "%d/%m/%Y %H:%M"},
        ),
        ([f"{day:02}-Jan-2025" for day in range(1, 29)], {"type": "date", "dates": "%d-%b-%Y"}),
        ([f"2024-{month:02}" for month in range(1, 13)], {"type": "date", "dates": "%Y-%m"}),
        ([f"202501{day:02}" for day in range(1, 29)], {"type": "date", "dates": "%Y%m%d"}),
        (
            [f"202501{day:02}T101500Z" for day in range(1, 29)],
            {"type": "timestamp", "dates": "%Y%m%dT%H%M%SZ"},
        ),
    ],
)
def test_the_form_that_all_values_fit_is_declared(texts: list[str], column: dict[str, Any]) -> None:
    assert guessed(texts)[0] == column


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (
            [f"0{day}/0{day % 4 + 1}/2025" for day in range(1, 10)],
            r"cannot tell day from month.*%d/%m/%Y or %m/%d/%Y",
        ),
        ([f"0{day}-0{day % 4 + 1}-24" for day in range(1, 10)], "cannot tell day from month"),
        (
            ["1,234", "5,678", "9,012"] * 9,
            r"can be read in two ways: write thousands: ',' or decimal: ','",
        ),
        (
            [*numbers("999"), "NA", "NULL", "?"],
            r'int64 but for .*"NA".*write type: int64, null_values',
        ),
        ([f"2025-01-{day:02} 10:00:00 CET" for day in range(1, 29)], "name of a zone"),
        (
            [f"2025-01-{day:02}T10:00:00+01:00[Europe/Berlin]" for day in range(1, 29)],
            r"form that is not known, such as '2025-01-01T10:00:00\+01:00\[Europe/Berlin\]'",
        ),
        (numbers("99%", 30) + numbers("99", 30), "make them alike"),
        (
            [*numbers("999"), *["\u2013"] * 5],
            r'^92% of its values are numbers, .* such as "\\u2013": .* null_values: \[...\]',
        ),
        ([*numbers("999.5"), *[f"({n}.5)" for n in range(20)]], r'^75% of .* such as "\(0.5\)", '),
        (
            [*numbers("999.5"), *[f"{n}.5-" for n in range(20)]],
            r'such as "0.5-", .* make one by sql',
        ),
        (["red", "green", "NA", "None"] * 9, r'holds "NA" \(9\), "None" \(9\) as values'),
    ],
)
def test_what_cannot_be_told_stays_text_and_is_asked(texts: list[str], says: str) -> None:
    import re

    column, notes = guessed(texts)
    assert column == {"type": "string"}
    assert re.search(says, notes), notes


def test_codes_most_of_which_are_numbers_keep_what_means_no_value() -> None:
    codes = [*numbers("999.5"), *["V57", "E11"] * 9, *["?"] * 9]
    column, notes = guessed(codes)
    assert column == {"type": "string", "null_values": ["?"]}
    assert notes.startswith('77% of its values are numbers, others are such as "E11", "V57": if')
    assert guessed(codes, "diagnosis_code")[1] == guessed(["05", *codes])[1] == ""


def test_a_few_misfits_are_named_and_counted(tmp_path: Path) -> None:
    column, notes = guessed([*[f"{number}" for number in range(500)], "seven"])
    assert (column, notes) == ({"type": "int64"}, "")
    assert guessed([*[f"{number}" for number in range(300)], *["0.5"] * 2])[0] == {
        "type": "float64"
    }
    assert (
        written(
            profile.Profile("x", Table(write_table(tmp_path)).columns[0].column, 1, 0, 1, 0).column
        )
        == []
    )


def test_a_table_whose_dates_cannot_be_told_is_refused_with_what_to_write(tmp_path: Path) -> None:
    lines = "".join(f"{n % 40},0{n % 9 + 1}/0{n % 7 + 1}/2025,{n}.5,{n % 2}\n" for n in range(400))
    with pytest.raises(
        ConfigError,
        match=r"'date' holds dates, but cannot tell day from month.*dates: %d/%m/%Y or %m/%d/%Y",
    ):
        draft.draft(write_table(tmp_path, lines))
