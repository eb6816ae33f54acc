"""Dates that stand in several columns, and lead times before them."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.onboarding.date_parts import Expression, add_dates
from include.onboarding.profile import Table
from tests.builders.drafted import days

DAYS = days()
YEARS, MONTHS, OF_MONTH = (
    [d.year for d in DAYS],
    [d.month for d in DAYS],
    [d.day for d in DAYS],
)


def table_of(folder: Path, columns: dict[str, list[Any]]) -> Table:
    path = folder / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return Table(path)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (("arrival_date_year", "arrival_date_month", "arrival_date_day_of_month"), "arrival_date"),
        (("Year", "Month", "DayofMonth"), "date"),
        (("year_of_sale", "month_of_sale", "day_of_sale"), "sale"),
        (("SaleYear", "SaleMonth", "SaleDay"), "sale"),
    ],
)
@pytest.mark.parametrize("form", ["%m", "%B", "%b", "%b."])
def test_year_month_and_day_are_one_date(
    tmp_path: Path, headers: tuple[str, str, str], name: str, form: str
) -> None:
    months = [d.strftime(form) for d in DAYS] if form != "%m" else MONTHS
    table = table_of(tmp_path, dict(zip(headers, (YEARS, months, OF_MONTH), strict=True)))
    (found,) = add_dates(table)
    assert found.header == name
    values = table.rows_of(f'SELECT DISTINCT "{name}" FROM given ORDER BY 1')
    assert [date.fromisoformat(row[0]) for row in values] == sorted(set(DAYS))
    assert add_dates(table) == (found,)  # guessed again, it is there once


def test_a_lead_time_is_the_days_before_the_date(tmp_path: Path) -> None:
    leads = [n % 90 for n in range(len(DAYS))]
    table = table_of(
        tmp_path, {"year": YEARS, "month": MONTHS, "day": OF_MONTH, "lead_time": leads}
    )
    earlier, same = add_dates(table)
    assert (earlier.header, same.header) == ("decided_on", "date")
    found = table.rows_of("SELECT decided_on, date FROM given")
    assert [str(day - timedelta(days=lead)) for day, lead in zip(DAYS, leads, strict=True)] == [
        row[0] for row in found
    ]
    assert isinstance(earlier.made, Expression)
    names = {header: f"c_{header}" for header in earlier.made.parts}
    assert earlier.made.over(names) == (
        "make_date(c_year, c_month, c_day) - CAST(c_lead_time AS INTEGER)"
    )


def test_a_day_that_is_not_in_the_calendar_is_no_value(tmp_path: Path) -> None:
    columns = {"year": [2024] * 300, "month": [2] * 300, "day": [*[1] * 299, 31]}
    (found,) = add_dates(table_of(tmp_path, columns))
    assert found.nulls == 1
    columns["day"] = [31] * 300
    assert add_dates(table_of(tmp_path, columns)) == ()


@pytest.mark.parametrize(
    "columns",
    [
        {"year": [24] * 300, "month": MONTHS, "day": OF_MONTH},
        {"year": YEARS, "month": ["may", "spring", *["jun"] * 298], "day": OF_MONTH},
        {"birth_year": YEARS, "sale_month": MONTHS, "day": OF_MONTH},
        {"month": MONTHS, "day_of_week": OF_MONTH},
        {"year": YEARS, "month": MONTHS, "day": [0, *OF_MONTH[1:]]},
    ],
)
def test_what_is_no_date_is_not_made_one(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    assert add_dates(table_of(tmp_path, columns)) == ()


def test_a_clock_beside_a_date_makes_one_moment(tmp_path: Path) -> None:
    clocks = [f"{n % 24:02}:{n % 60:02}" for n in range(len(DAYS))]
    table = table_of(tmp_path, {"Sale Date": DAYS, "Sale Time": clocks, "x": MONTHS})
    (found,) = add_dates(table)
    assert isinstance(found.made, Expression)
    assert (found.header, found.type, found.made.parts) == (
        "sale_date_at",
        "timestamp",
        ("Sale Date", "Sale Time"),
    )
    values = [row[0] for row in table.rows_of("SELECT sale_date_at FROM given ORDER BY rowid")]
    assert values == [f"{day} {clock}:00" for day, clock in zip(DAYS, clocks, strict=True)]
    # Which of two clocks is meant nobody can tell.
    assert add_dates(table_of(tmp_path, {"date": DAYS, "time": clocks, "end_time": clocks})) == ()


def test_days_of_excel_are_dates_and_their_parts_are_hours(tmp_path: Path) -> None:
    serials = [(day - date(1899, 12, 30)).days for day in DAYS]
    (found,) = add_dates(table_of(tmp_path, {"invoice date": serials, "days": serials}))
    assert (found.header, found.type) == ("invoice_date_day", "date")
    table = table_of(tmp_path, {"InvoiceDate": [serial + 0.75 for serial in serials]})
    (found,) = add_dates(table)
    assert (found.header, found.type) == ("invoice_date_day", "timestamp")
    values = [row[0] for row in table.rows_of("SELECT invoice_date_day FROM given ORDER BY rowid")]
    assert values == [f"{day} 18:00:00" for day in DAYS]
    assert add_dates(table_of(tmp_path, {"date": [n * 9 for n in range(len(DAYS))]})) == ()
