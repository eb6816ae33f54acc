"""How many texts of a column fit a contract, with and without tokens."""

from __future__ import annotations

import pyarrow as pa
import pytest

from include.config.use_case_sources import Column
from include.lake.sql import connect
from include.onboarding.column_texts import ColumnTexts, written
from tests.builders.drafted import guessed, numbers


@pytest.mark.parametrize(
    ("token", "share"),
    [
        ("NA", 0.005),
        ("na", 0.3),
        ("N/A", 0.95),
        ("NULL", 0.3),
        ("\\N", 0.01),
        ("?", 0.3),
        ("None", 0.6),
        ("NaN", 0.3),
        ("-", 0.02),
    ],
)
def test_one_or_two_tokens_are_declared_whatever_their_share(token: str, share: float) -> None:
    values = [f"{number}.5" for number in range(200)]
    missing = [token] * max(1, round(200 * share / (1 - share)))
    assert guessed(values + missing)[0] == {"type": "float64", "null_values": [token]}
    both = guessed(values + missing * 2 + ["n.a."])[0]
    assert both == {"type": "float64", "null_values": [token, "n.a."]}


def test_tokens_meet_other_forms_and_dates_without_an_end() -> None:
    assert guessed([*numbers("999,5"), "NA"])[0] == {
        "type": "float64",
        "decimal": ",",
        "null_values": ["NA"],
    }
    assert guessed([*numbers("1,999.5"), "-", "-"])[0] == {
        "type": "float64",
        "thousands": ",",
        "null_values": ["-"],
    }
    days = [f"2025-01-{day:02}" for day in range(1, 29)]
    assert guessed([*days, *["9999-12-31"] * 90])[0] == {
        "type": "date",
        "null_values": ["9999-12-31"],
    }
    assert guessed([*days, "0000-00-00"])[0] == {"type": "date", "null_values": ["0000-00-00"]}
    german = [f"{day:02}.01.2025" for day in range(1, 29)]
    assert guessed([*german, *["31.12.9999"] * 9])[0] == {
        "type": "date",
        "dates": "%d.%m.%Y",
        "null_values": ["31.12.9999"],
    }
    assert guessed(["a", "b", "NULL", "?"] * 5)[0] == {
        "type": "string",
        "null_values": ["?", "NULL"],
    }


def test_what_goes_to_quarantine_is_counted_and_shown() -> None:
    with connect() as con:
        con.register("texts", pa.table({"t": ["1", "2", "x", "x", "y", "NA"]}))
        con.execute("CREATE TEMP TABLE seen AS SELECT t, count(*) AS n FROM texts GROUP BY t")
        texts = ColumnTexts(con, "amount_no")
        column = Column(type="int64")
        assert (texts.filled, texts.different, texts.tokens) == (6, 5, {"NA": 1})
        assert (texts.misfits(column), texts.examples(column)) == (4, ("x", "NA", "y"))
        assert texts.counts(["t = 'x'", "false"]) == [2, 0]
        assert texts.counts([]) == []
        assert texts.have_shape("[0-9]+"), "half of 1, 2, x, y; a token does not count"
        assert not texts.have_shape("[a-w0]+")
        assert texts.half_fitting([column, Column(type="string")]) == [
            column,
            Column(type="string"),
        ]
        assert texts.without_tokens(column) is None
        assert (texts.sounds_of_id, texts.sounds_of_time) == (True, False)


def test_more_tokens_than_two_are_a_question() -> None:
    column, notes = guessed([*map(str, range(90)), "NA", "?", "none"])
    assert column == {"type": "string"}
    assert 'int64 but for "?", "NA", "none": if these mean no value, write type: int64' in notes


def test_fields_are_written_as_yaml_reads_them() -> None:
    column = Column(type="float64", decimal=",", thousands=".", percent=True, null_values=["-"])
    assert written(column) == [
        'decimal: ","',
        'thousands: "."',
        "percent: true",
        'null_values: ["-"]',
    ]
    assert written(Column(type="int64")) == []
