"""Written forms of dates and times, and digits that are dates."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders.drafted import guessed

UNIX_OR_NULL = {"type": "timestamp", "dates": "unix_seconds", "null_values": ["NULL"]}


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
    ("text", "dates"),
    [
        ("2025-01-{day} 10:07:00,123", "%Y-%m-%d %H:%M:%S,%f"),
        ("{day}.01.2025 10.07", "%d.%m.%Y %H.%M"),
        ("{day}.01.25 10.07", "%d.%m.%y %H.%M"),
        ("{day}-JAN-25 10.07.00.000000000 PM", "%d-%b-%y %I.%M.%S.%n %p"),
    ],
)
def test_clocks_are_read_as_logs_spreadsheets_and_databases_write_them(
    text: str, dates: str
) -> None:
    texts = [text.format(day=f"{day:02}") for day in range(1, 29)]
    assert guessed(texts, "at")[0] == {"type": "timestamp", "dates": dates}


def test_two_digits_of_a_year_are_noted() -> None:
    column, notes = guessed([f"{day:02}.01.25" for day in range(1, 29)])
    assert column == {"type": "date", "dates": "%d.%m.%y"}
    assert "00 to 68 are taken as 20xx" in notes


def test_forms_that_read_every_value_alike_are_one_form() -> None:
    assert guessed([f"{day:02} Jan 2025" for day in range(1, 29)])[0]["dates"] == "%d %b %Y"
    assert guessed([f"{day:02} May 2025" for day in range(1, 29)])[0]["dates"] == "%d %b %Y"


def test_unix_times_of_other_centuries_are_numbers() -> None:
    assert guessed([str(4_000_000_000 + number) for number in range(50)], "created_at")[0] == {
        "type": "int64"
    }
