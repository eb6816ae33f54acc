"""Where a row belongs: broken lines, late rows, files of a partition, in every order of runs and for every kind of source."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.intake import HEAD, Intake

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]


def line(number: int, created: str, amount: str = "1") -> str:
    """Return an order that happened and arrived at one moment, such as `01 10:00`, of January 2026."""
    moment = f"2026-01-{created[:2]}T{created[3:]}Z"
    return f"{number},1,{moment},{moment},{amount},1\n"


def as_json(text: str) -> str:
    """Return CSV lines as JSON lines; a broken one stays as it is."""
    names = HEAD.strip().split(",")
    rows = [row.split(",") for row in text.splitlines()]
    return "".join(
        json.dumps(dict(zip(names, row, strict=True))) + "\n" if len(row) == len(names) else ",".join(row) + "\n" for row in rows
    )


@pytest.mark.parametrize("kind", ["csv", "blank", "quoted", "crlf", "gz", "jsonl"])
def test_a_broken_line_stays_where_it_stands_as_the_file_grows(tmp_path: Path, kind: str) -> None:
    """It is set aside once, with the rows around it, and closed days run again without a reason."""
    name = "orders.jsonl" if kind == "jsonl" else "orders.csv.gz" if kind == "gz" else "orders.csv"
    made = Intake(tmp_path, path=name, more="max_bad: 1")

    def deliver(text: str) -> None:
        body = as_json(text) if kind == "jsonl" else HEAD + text
        body = body.replace("\n", "\r\n") if kind == "crlf" else body
        made.put(gzip.compress(body.encode()) if kind == "gz" else body, name)

    first = {
        "blank": "\n\n" + line(1, "01 01:00") + "\n2,BROKEN\n" + line(3, "01 03:00"),
        "quoted": line(1, "01 01:00", '"1\n\n\n"') + "2,BROKEN\n" + line(3, "01 03:00"),
    }.get(kind, line(1, "01 01:00") + "2,BROKEN\n" + line(3, "01 03:00"))
    told = []
    for key, more in zip(DAYS[:3], ("", line(4, "02 01:00") + "5,6,BROKEN\n" + line(6, "02 02:00"), line(7, "03 01:00")), strict=True):
        first += more
        deliver(first)
        report = made.validate(key)
        told.append(report.outputs["sources"]["orders"]["rules"].get("malformed_row", 0))
    assert told == [1, 1, 0]
    assert [row["malformed"] for row in made.raw(DAYS[0]) if row["malformed"]] == ["2,BROKEN"]
    assert [(row["source_row"], row["malformed"]) for row in made.raw(DAYS[1]) if row["malformed"]] == [(5, "5,6,BROKEN")]
    before = [made.result("ingestion", key).digest for key in DAYS[:3]]
    assert [made.ingest(key).digest for key in DAYS[:3]] == before


def test_a_json_object_with_a_key_twice_is_set_aside_by_its_line(tmp_path: Path) -> None:
    made = Intake(tmp_path, path="orders.jsonl", more="max_bad: 1")
    good = as_json(line(1, "01 01:00"))
    made.put(good + good.replace('"amount": "1"', '"amount": "1", "amount": "2"'), "orders.jsonl")
    report = made.validate(DAYS[0])
    assert report.outputs["sources"]["orders"]["rules"] == {"malformed_row": 1}
    assert made.rules(DAYS[0]) == {2: "malformed_row"}
