"""One rule for a value: forms that a column declares, what means no value, and times in any of
their forms.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from include.config.use_case_sources import Column, Source
from include.errors import ConfigError
from include.ingestion.values import are_bare, cell, plain, typed
from include.lake.sql import connect
from include.onboarding import check
from include.texts import plain_text
from include.validation.contract import judged_query, mixed_zones_query
from tests.builders.intake import COLUMNS, YAML

NONE = None


def source(columns: dict[str, Any], **more: Any) -> Source:
    given: dict[str, Any] = {
        "path": "rows.csv",
        "key": ["id"],
        "event_time": "at",
        "arrival": "event + 0s",
    }
    kinds = {"id": {"type": "int64"}, "at": {"type": "timestamp"}} | columns
    return Source.model_validate({**given, "columns": kinds, **more})


def judged(column: dict[str, Any], texts: list[str | None], **more: Any) -> list[Any]:
    """Return each text's value in a column, or the rule that it fails."""
    of = source({"x": column}, **more)
    rows = pa.table(
        {
            "partition": ["p"] * len(texts),
            "source_file": ["f"] * len(texts),
            "source_row": list(range(len(texts))),
            "id": [str(number) for number in range(len(texts))],
            "at": ["2025-01-01"] * len(texts),
            "x": pa.array(texts, pa.string()),
            "arrived_at": pa.array(
                [datetime(2025, 1, 2, tzinfo=UTC)] * len(texts), pa.timestamp("us", "UTC")
            ),
        }
    )
    with connect() as con:
        con.register("raw", rows)
        con.execute(
            "CREATE TEMP TABLE __periods AS SELECT 'p' AS partition, TIMESTAMPTZ "
            "'2025-02-01' AS __as_of"
        )
        zones = mixed_zones_query(of, set(rows.column_names), "raw")
        mixed = con.execute(zones).fetchall() if zones else []
        query = judged_query(of, set(rows.column_names), "raw", mixed)
        found = con.execute(f"SELECT x, rule FROM ({query}) ORDER BY source_row").fetchall()
    return [value if rule is None else rule.removeprefix("x: ") for value, rule in found]


@pytest.mark.parametrize(
    ("column", "texts", "values"),
    [
        (
            {"type": "float64", "decimal": ","},
            ["1,5", "-0,25", "7", "1.5", "1,2,3", ",5", "2,"],
            [1.5, -0.25, 7.0, "no", "no", 0.5, 2.0],
        ),
        (
            {"type": "float64", "thousands": ","},
            ["1,234.5", "1,234,567", "12,34", "1234", "-1,000", "1,0000", ",123"],
            [1234.5, 1234567.0, "no", 1234.0, -1000.0, "no", "no"],
        ),
        (
            {"type": "float64", "decimal": ",", "thousands": "."},
            ["1.234,5", "1.234.567", "1,5", "1.5", "0.123", "-00.123,5", "10.123", "0,123"],
            [1234.5, 1234567.0, 1.5, "no", "no", "no", 10123.0, 0.123],
        ),
        (
            {"type": "float64", "thousands": " "},
            ["1 234.5", "1\u202f234", "1\u00a0234 567", "1 23"],
            [1234.5, 1234.0, 1234567.0, "no"],
        ),
        (
            {"type": "int64", "thousands": "'"},
            ["1'234", "1\u2019234'567", "-5", "1.0", "1.5"],
            [1234, 1234567, -5, 1, "no"],
        ),
        (
            {"type": "int64"},
            ["1.0", "2.", "-3.000", "9223372036854775807", "1,234"],
            [1, 2, -3, 2**63 - 1, "no"],
        ),
        (
            {"type": "float64", "percent": True},
            ["5%", "12.5 %", "-3%", "5", "%"],
            [0.05, 0.125, -0.03, "no", "no"],
        ),
        ({"type": "float64", "percent": True, "decimal": ","}, ["12,5 %", "12.5 %"], [0.125, "no"]),
        (
            {"type": "float64", "unit": "$", "thousands": ","},
            ["$1,234.50", "-$5", "$-5", "$ 7", "8", "9 $", "\u2212$3", "$", "$1$"],
            [1234.5, -5.0, -5.0, 7.0, 8.0, 9.0, -3.0, "no", 1.0],
        ),
        (
            {"type": "float64", "unit": "EUR", "decimal": ","},
            ["5,00 EUR", "5,00EUR", "EUR 5", "5 USD"],
            [5.0, 5.0, 5.0, "no"],
        ),
    ],
)
def test_numbers_are_read_in_the_form_that_is_declared_and_in_no_other(
    column: dict[str, Any], texts: list[str], values: list[Any]
) -> None:
    refused = f"not_{column['type']}"
    assert judged(column, texts) == [refused if value == "no" else value for value in values]


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("column", "texts", "values"),
    [
        (
            {"type": "date", "dates": "%d.%m.%Y"},
            ["31.12.2024", "1.2.2025", "2024-12-31", "31.02.2024"],
            [date(2024, 12, 31), date(2025, 2, 1), NONE, NONE],
        ),
        (
            {"type": "date", "dates": "%m/%d/%Y"},
            ["12/31/2024", "31/12/2024"],
            [date(2024, 12, 31), NONE],
        ),
        (
            {"type": "date", "dates": "%y%m%d"},
            ["960728", "250101"],
            [date(1996, 7, 28), date(2025, 1, 1)],
        ),
        ({"type": "date", "dates": "%Y%m%d"}, ["20250131", "20250132"], [date(2025, 1, 31), NONE]),
        ({"type": "date", "dates": "%Y-%m"}, ["2024-05", "2024-13"], [date(2024, 5, 1), NONE]),
        (
            {"type": "date", "dates": "%d.%m.%Y %H:%M"},
            ["31.12.2024 00:00", "31.12.2024 10:00"],
            [date(2024, 12, 31), NONE],
        ),
        (
            {"type": "timestamp", "dates": "%d.%m.%Y %H:%M"},
            ["31.12.2024 10:05"],
            [at(2024, 12, 31, 10, 5)],
        ),
        (
            {"type": "timestamp", "dates": "%Y-%m-%d %H:%M:%S %z"},
            ["2025-01-01 10:00:00 +0100"],
            [at(2025, 1, 1, 9)],
        ),
        (
            {"type": "timestamp", "dates": "%Y%m%dT%H%M%SZ"},
            ["20250101T100000Z"],
            [at(2025, 1, 1, 10)],
        ),
        (
            {"type": "timestamp", "dates": "unix_seconds"},
            ["1735689600", "1735689600.25", "x", "99999999999"],
            [at(2025, 1, 1), at(2025, 1, 1, 0, 0, 0, 250_000), NONE, NONE],
        ),
        (
            {"type": "timestamp", "dates": "unix_milliseconds"},
            ["1735689600123", "-1"],
            [at(2025, 1, 1, 0, 0, 0, 123_000), at(1969, 12, 31, 23, 59, 59, 999_000)],
        ),
        (
            {"type": "timestamp", "dates": "unix_nanoseconds"},
            ["1735689600123456789"],
            [at(2025, 1, 1, 0, 0, 0, 123_456)],
        ),
        (
            {"type": "date", "dates": "unix_seconds"},
            ["1735689600", "1735689601"],
            [date(2025, 1, 1), NONE],
        ),
        (
            {"type": "timestamp"},
            [
                "2025-01-01 00:07:00 UTC",
                "2025-01-01T00:07:00Z",
                "2025-01-01 00:07 GMT",
                "2025-01-01 01:07:00+01",
                "2025-01-01 00:07:00 +0000 UTC",
                "2025-01-01 00:07:00 CET",
                "2025-01-01 00:07:00 utc",
            ],
            [at(2025, 1, 1, 0, 7)] * 5 + [NONE] + [at(2025, 1, 1, 0, 7)],
        ),
    ],
)
def test_times_are_read_in_the_form_that_is_declared(
    column: dict[str, Any], texts: list[str], values: list[Any]
) -> None:
    assert judged(column, texts) == [
        f"not_{column['type']}" if value is None else value for value in values
    ]


def test_a_declared_form_counts_for_the_sources_own_times_and_its_zone() -> None:
    column = {"type": "timestamp", "dates": "%d.%m.%Y %H:%M"}
    texts: list[str | None] = [
        "26.10.2025 01:30",
        "26.10.2025 02:30",
        "30.03.2025 02:30",
        "01.07.2025 12:00",
    ]
    found = judged(column, texts, timezone="Europe/Berlin")
    assert found == [
        at(2025, 10, 25, 23, 30),
        "ambiguous_time",
        "ambiguous_time",
        at(2025, 7, 1, 10),
    ]
    assert judged(
        {"type": "timestamp", "dates": "%Y-%m"}, ["2024-02"], date_means="end_of_day"
    ) == [at(2024, 2, 29, 23, 59, 59, 999_999)]


@pytest.mark.parametrize(
    ("zone", "twice", "never", "clear"),
    [
        # Two hours.
        ("Antarctica/Troll", "2024-10-27 01:30:00", "2024-03-31 01:30:00", "2024-10-27 04:00:00"),
        ("Europe/Berlin", "2024-10-27 02:30:00", "2024-03-31 02:30:00", "2024-10-27 03:30:00"),
        # Half an hour.
        (
            "Australia/Lord_Howe",
            "2024-04-07 01:45:00",
            "2024-10-06 02:15:00",
            "2024-04-07 02:15:00",
        ),
    ],
)
def test_a_clock_change_of_any_size_is_ambiguous(
    zone: str, twice: str, never: str, clear: str
) -> None:
    found = judged({"type": "timestamp"}, [twice, never, clear], timezone=zone)
    assert found[:2] == ["ambiguous_time", "ambiguous_time"]
    assert isinstance(found[2], datetime)


def test_what_means_no_value_is_null_in_every_type_and_texts_are_trimmed() -> None:
    texts: list[str | None] = ["NA", " NA\t", "", "  ", None, "na", "\u00a0x \n"]
    assert judged({"type": "string", "null_values": ["NA"]}, texts) == [
        None,
        None,
        None,
        None,
        None,
        "na",
        "x",
    ]
    assert judged({"type": "float64"}, ["?", "1", "NA"], null_values=["?"]) == [
        None,
        1.0,
        "not_float64",
    ]
    assert judged({"type": "float64", "null_values": []}, ["?"], null_values=["?"]) == [
        "not_float64"
    ]
    assert judged({"type": "int64", "null_values": [-999]}, ["-999", "5"]) == [None, 5]
    assert judged({"type": "date", "null_values": ["9999-12-31"]}, ["9999-12-31"]) == [None]
    assert judged({"type": "string", "nullable": False}, [" "]) == ["null"]


def test_limits_of_whole_numbers_are_exact() -> None:
    texts: list[str | None] = [str(2**53), str(2**53 + 1), str(2**53 + 2)]
    assert judged({"type": "int64", "min": 2**53 + 1}, texts) == ["below_min", 2**53 + 1, 2**53 + 2]
    assert judged({"type": "int64", "max": 2**53}, texts) == [2**53, "above_max", "above_max"]
    assert judged({"type": "int64", "max": 1.5}, ["1", "2"]) == [1, "above_max"]


def test_allowed_values_are_of_the_columns_type() -> None:
    assert judged({"type": "int64", "values": [1, 2]}, ["1", "2.0", "3"]) == [1, 2, "not_allowed"]
    assert judged({"type": "float64", "values": ["0.50", 1]}, ["0.5", "1.0", "2"]) == [
        0.5,
        1.0,
        "not_allowed",
    ]
    assert judged({"type": "bool", "values": [True]}, ["yes", "no"]) == [True, "not_allowed"]
    assert judged({"type": "string", "values": [1, "x"]}, ["1", " x", "y", ""]) == [
        "1",
        "x",
        "not_allowed",
        None,
    ]
    assert judged(
        {"type": "date", "dates": "%d.%m.%Y", "values": ["31.12.2024"]}, ["31.12.2024"]
    ) == [date(2024, 12, 31)]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"type": "string", "values": [False, "SE"]}, "quote it, such as 'NO'"),
        ({"type": "string", "values": [1.10]}, "quote it"),
        ({"type": "string", "null_values": [None]}, "quote it"),
        ({"type": "string", "decimal": ","}, "is for columns of type int64 or float64"),
        ({"type": "int64", "percent": True}, "write type: float64"),
        (
            {"type": "float64", "decimal": ",", "thousands": ","},
            "cannot group the digits and begin the decimals too",
        ),
        ({"type": "date", "dates": "%d.%m."}, "names no year"),
        ({"type": "int64", "dates": "unix_seconds"}, "for columns of type date or timestamp"),
        ({"type": "float64", "unit": "5"}, "match pattern"),
    ],
)
def test_a_form_that_cannot_be_is_refused_with_a_remedy(column: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Column.model_validate(column)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("{type: int64, values: ['1', two]}", r"values: 'two' is no value of type int64"),
        ("{type: date, dates: '%d.%m.%Q %Y'}", r"dates: '%d.%m.%Q %Y' is no format of dates"),
        ("{type: string, values: [NO, SE]}", r"values: .*quote it, such as 'NO'"),
        ("{type: date, dates: '%d.%m.%Y', values: ['31.12.2024']}", ""),
        ("{type: int64, values: [1, '2.0']}", ""),
        ("{type: bool, values: [yes]}", ""),
    ],
)
def test_the_check_reads_values_as_the_contract_does(
    tmp_path: Path, column: str, says: str
) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(
        YAML.format(path="orders.csv", more="", columns=COLUMNS + f"\n      x: {column}")
    )
    if says:
        with pytest.raises(ConfigError, match=says):
            check.check_file(path)
    else:
        assert check.check_file(path).name == "shop"


def test_hostile_tokens_and_forms_stay_text() -> None:
    column = {"type": "string", "null_values": ["'); DROP TABLE raw; --"]}
    assert judged(column, ["'); DROP TABLE raw; --", "x"]) == [None, "x"]
    of = source({"x": {"type": "date", "dates": "%Y'||(SELECT 1)||'"}})
    with connect() as con:
        con.execute(f"SELECT {typed('NULL::VARCHAR', of.columns['x'], of)}")


@pytest.mark.parametrize(
    ("texts", "bare"),
    [
        (["a", "b c", "d\u00a0e", "é", "1"], True),
        (["a", " b"], False),
        (["a\t", "b"], False),
        (["a", "b\n"], False),
        (["\ra"], False),
        (["\u00a0a"], False),
        (["a\u00a0"], False),
        (["a", ""], False),
        (["a", None], False),
        # Begins, or ends, with a byte of the no-break space: looked at more closely.
        (["\u00b5"], False),
        (["à"], False),
        # Two letters that are one, and letters that nobody sees.
        (["u\u0308b"], False),
        (["a\u00adb"], False),
        (["a\u200bb"], False),
        (["a\ufeffb"], False),
    ],
)
def test_bare_texts_need_no_trimming(texts: list[str | None], bare: bool) -> None:
    given = pa.array(["", *texts, " "], pa.string()).slice(1, len(texts))
    assert are_bare(given) is bare


LETTERS = {
    "zur\u00fcck": "zur\u00fcck",
    "zuru\u0308ck": "zur\u00fcck",
    "zu\u00adr\u00fcck": "zur\u00fcck",
    "u\u200b\u0308": "\u00fc",
    "\ufeffA": "A",
    "A\u200b": "A",
    " A\u00a0\u200b ": "A",
    "\u1112\u1161\u11ab": "\ud55c",
    "\u212b": "\u00c5",
    "na\u200d\u00efve": "na\u200d\u00efve",
    "\u200b": None,
    "k\u00f6nnte": None,
}


def test_letters_that_look_alike_are_one_text() -> None:
    none = ["ko\u0308nnte"]
    assert judged({"type": "string", "null_values": none}, list(LETTERS)) == list(LETTERS.values())
    values = judged(
        {"type": "string", "values": ["ja", "zuru\u0308ck"]}, ["zur\u00fcck", "\ufeffja"]
    )
    assert values == ["zur\u00fcck", "ja"]
    assert judged({"type": "int64"}, ["12\u200b", "\ufeff-3"]) == [12, -3]


@pytest.mark.parametrize("text", [*LETTERS, "a", " \ta\n", "\u00e9t\u00e9 ", "", "\U0001f600"])
def test_a_text_of_a_request_is_read_as_one_of_a_row(text: str) -> None:
    with connect() as con:
        (read,) = con.execute(f"SELECT {plain('t')} FROM (SELECT ? AS t)", [text]).fetchall()
    assert read == (plain_text(text),)


def test_bare_texts_still_say_that_there_is_no_value() -> None:
    of = source({}, null_values=["-", "n/a"])
    texts = pa.table({"x": ["-", "1", "n/a"]})
    with connect() as con:
        con.register("given", texts)
        (one, other) = (
            con.execute(f"SELECT {cell('x', of, bare=bare)} FROM given").fetchall()
            for bare in (True, False)
        )
    assert one == other == [(None,), ("1",), (None,)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", None),
        ("007", 7),
        ("-0", 0),
        ("+5", 5),
        ("12.00", 12),
        ("12.7", None),
        ("1_000", None),
        ("1e3", None),
        ("0x10", None),
    ],
)
def test_a_whole_number_is_written_in_digits(text: str, number: int | None) -> None:
    of = source({})
    with connect() as con:
        told = con.execute(
            f"SELECT {typed('t', Column(type='int64'), of)} FROM (SELECT ? AS t)", [text]
        )
        assert told.fetchall() == [(number,)]
