"""Columns and small tables to draft from, and the drafts that they come to."""

from __future__ import annotations

import csv
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.config import use_case_file
from include.config.use_case import UseCase
from include.lake.sql import connect
from include.onboarding import check, draft
from include.onboarding.value_formats import guess_column

Rows = dict[str, list[Any]]
N = 300
AT = datetime(2025, 1, 1, 0, 7, tzinfo=UTC)


def guessed(texts: list[str], header: str = "x") -> tuple[dict[str, Any], str]:
    """Return the column that texts are taken for, and the notes."""
    with connect() as con:
        con.register("texts", pa.table({"t": texts}))
        con.execute("CREATE TEMP TABLE seen AS SELECT t, count(*) AS n FROM texts GROUP BY t")
        guess = guess_column(con, header)
    return guess.column.model_dump(exclude_defaults=True), " | ".join(guess.notes)


def numbers(form: str, count: int = 60) -> list[str]:
    """Return different numbers in a form; `9` stands for digits that vary."""
    return [
        form.replace("999", f"{(number * 37) % 900 + 100}").replace(
            "99", f"{(number * 7) % 90 + 10}"
        )
        for number in range(count)
    ]


def write_table(folder: Path, lines: str | None = None) -> Path:
    """Write a table of customers, dates, amounts and labels."""
    path = folder / "t.csv"
    body = lines or "".join(
        f"{n},2025-01-{n % 28 + 1:02},{n * 7 % 90}.5,{n % 2}\n" for n in range(400)
    )
    path.write_text("customer_id,date,amount,label\n" + body)
    return path


def orders(**more: list[Any]) -> Rows:
    """Return orders of 40 customers, each at a time of its own."""
    rng = random.Random(4)
    whole: Rows = {
        "order_id": [1_000 + n for n in range(N)],
        "customer_id": [rng.randrange(40) for _ in range(N)],
        "event_time": [(AT + timedelta(hours=3 * n)).isoformat() for n in range(N)],
        "amount": [round(rng.gauss(50, 9), 2) for _ in range(N)],
    }
    whole |= more
    if "returned" not in whole and not any(name.startswith("y_") for name in whole):
        whole["returned"] = [int(rng.random() < 0.3) for _ in range(N)]
    return {name: values for name, values in whole.items() if values}


def drafted(folder: Path, rows: Rows, **options: str) -> tuple[UseCase, str]:
    """Return the use case and the text of a draft from rows, which passes the check."""
    path = folder / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    text = draft.draft(path, **options)[1]
    use_case = use_case_file.parse(text, folder=folder)
    assert list(check.find_problems(use_case)) == []
    return use_case, text


def days(step: timedelta = timedelta(days=1), first: date = date(2025, 1, 1)) -> list[date]:
    """Return a date for each row, `step` apart."""
    return [first + n * step for n in range(N)]
