"""Guesses of columns: what fits is declared and said, what cannot be told apart is asked, and
nothing of it blocks the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.config import use_case_file
from include.errors import ConfigError
from include.lake.sql import connect
from include.onboarding import draft
from include.onboarding.profile import Table
from include.onboarding.value_formats import guess, written

UNIX_OR_NULL = {"type": "timestamp", "dates": "unix_seconds", "null_values": ["NULL"]}


def guessed(texts: list[str], header: str = "x") -> tuple[dict[str, Any], str]:
    """Return the column that texts are taken for, and the notes."""
    with connect() as con:
        con.register("texts", pa.table({"t": texts}))
        con.execute("CREATE TEMP TABLE seen AS SELECT t, count(*) AS n FROM texts GROUP BY t")
        found = guess(con, header)
    return found.column.model_dump(exclude_defaults=True), " | ".join(found.notes)


def numbers(form: str, count: int = 60) -> list[str]:
    """Return different numbers in a form; `9` stands for digits that vary."""
    return [
        form.replace("999", f"{(number * 37) % 900 + 100}").replace(
            "99", f"{(number * 7) % 90 + 10}"
        )
        for number in range(count)
    ]


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
    ("header", "texts", "column"),
    [
        (
            "birth_date",
            [f"9601{day:02}" for day in range(1, 29)],
            {"type": "date", "dates": "%y%m%d"},
        ),
        ("visits", [f"9601{day:02}" for day in range(1, 29)], {"type": "int64"}),
        (
            "created_at",
            [str(1_735_689_600 + 977 * n) for n in range(50)],
            {"type": "timestamp", "dates": "unix_seconds"},
        ),
        (
            "event_time",
            [str(1_735_689_600_123 + 977 * n) for n in range(50)],
            {"type": "timestamp", "dates": "unix_milliseconds"},
        ),
        ("ts", ["NULL", *[str(1_735_689_600 + n) for n in range(50)]], UNIX_OR_NULL),
        ("amount", [str(1_735_689_600 + 977 * n) for n in range(50)], {"type": "int64"}),
        ("order_id", [f"202501{day:02}" for day in range(1, 29)], {"type": "int64"}),
    ],
)
def test_digits_are_dates_where_name_and_values_say_so(
    header: str, texts: list[str], column: dict[str, Any]
) -> None:
    assert guessed(texts, header)[0] == column


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
        (numbers("99%", 30) + numbers("99", 30), "make them alike"),
        (["red", "green", "NA", "None"] * 9, r'holds "NA" \(9\), "None" \(9\) as values'),
    ],
)
def test_what_cannot_be_told_stays_text_and_is_asked(texts: list[str], says: str) -> None:
    import re

    column, notes = guessed(texts)
    assert column == {"type": "string"}
    assert re.search(says, notes), notes


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


def test_a_few_misfits_are_named_and_counted(tmp_path: Path) -> None:
    column, notes = guessed([*[f"{number}" for number in range(500)], "seven"])
    assert (column, notes) == ({"type": "int64"}, "")
    assert guessed([*[f"{number}" for number in range(300)], *["0.5"] * 2])[0] == {
        "type": "float64"
    }
    assert (
        written(draft.Profile("x", Table(_table(tmp_path)).columns[0].column, 1, 0, 1, 0).column)
        == []
    )


def _table(folder: Path, lines: str | None = None) -> Path:
    path = folder / "t.csv"
    body = lines or "".join(
        f"{n},2025-01-{n % 28 + 1:02},{n * 7 % 90}.5,{n % 2}\n" for n in range(400)
    )
    path.write_text("customer_id,date,amount,label\n" + body)
    return path


@pytest.mark.parametrize(
    ("amounts", "share"),
    [
        # 1 of 400 values, and of the 15 rows of its day.
        (lambda n: "seven" if n == 5 else f"{n}.5", 1 / 15),
        (lambda n: "1e999" if n in (5, 33) else f"{n}.5", 2 / 15),
        (lambda n: f"{n}.5", 0.0),
    ],
)
def test_a_draft_never_blocks_on_the_table_that_it_was_made_from(
    tmp_path: Path, amounts: Any, share: float
) -> None:
    lines = "".join(f"{n % 43},2025-01-{n % 28 + 1:02},{amounts(n)},{n % 2}\n" for n in range(400))
    path = _table(tmp_path, lines)
    _, text = draft.draft(path)
    source = use_case_file.parse(text, folder=tmp_path).sources["rows"]
    worst = Table(path).worst(source, "day")
    assert worst.share == pytest.approx(share)
    assert source.max_bad >= worst.share
    assert ("max_bad" in text) == (share > 0.01)


def test_a_table_whose_dates_cannot_be_told_is_refused_with_what_to_write(tmp_path: Path) -> None:
    lines = "".join(f"{n % 40},0{n % 9 + 1}/0{n % 7 + 1}/2025,{n}.5,{n % 2}\n" for n in range(400))
    with pytest.raises(
        ConfigError,
        match=r"'date' holds dates, but cannot tell day from month.*dates: %d/%m/%Y or %m/%d/%Y",
    ):
        draft.draft(_table(tmp_path, lines))


def test_a_column_that_is_named_and_empty_is_told(tmp_path: Path) -> None:
    lines = "".join(f"{n % 40},2025-01-{n % 28 + 1:02},,{n % 2}\n" for n in range(60))
    for option, said in (("label", "--label"), ("key", "--entity"), ("time", "--time")):
        with pytest.raises(ConfigError, match=f"{said} 'amount' has no values"):
            draft.draft(_table(tmp_path, lines), **{option: "amount"})


def test_a_file_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "t.data"
    path.write_text(
        "".join(f"{n % 43}; 2025-01-{n % 28 + 1:02}; {n * 7 % 90},5; {n % 2}\n" for n in range(400))
    )
    _, text = draft.draft(path, key="c1")
    source = use_case_file.parse(text, folder=tmp_path).sources["rows"]
    assert (source.header, source.separator, source.columns["c3"].decimal) == (False, ";", ",")
    assert 'from "t.data" (400 rows)' in text


def test_a_draft_counts_lines_that_are_no_rows_and_times_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    lines = "".join(
        f"{n % 43},{'soon' if n == 7 else f'2025-01-{n % 28 + 1:02}'},{n}.5,{n % 2}\n"
        for n in range(400)
    )
    _, text = draft.draft(_table(tmp_path, lines + "broken\n"))
    assert "1 line(s) could not be split" in text
    assert 'would go to quarantine: "soon"' in text
    assert use_case_file.parse(text, folder=tmp_path).sources["rows"].max_bad > 0.05
