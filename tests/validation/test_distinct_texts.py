"""Judged by distinct texts rows come out as judged one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.pipeline.ingest_outputs import IngestOutputs
from include.point_in_time import partitions
from include.validation import curation, judged_rows
from tests.builders.intake import Intake

KEYS = ["2026-01-01", "2026-01-02"]
COLUMNS = """
      order_id: {type: int64, nullable: false}
      customer_id: {type: int64, nullable: false}
      amount: {type: float64, min: 0, max: 100, null_values: ["-", "99"]}
      segment: {type: string, nullable: false, values: [a, b]}
      branch: {type: string, regex: "[A-Z]-[0-9]"}
      opened: {type: date}
      seen: {type: timestamp}
      paid: {type: int64, values: ["0", "1"]}"""
HEAD = (
    "order_id,customer_id,event_timestamp,created_timestamp,amount,segment,branch,opened,seen,paid"
)
ODD = {
    "order_id": ["007", "x", "", "+5", "1.0", "1.5"],
    "customer_id": ["", "01", " 4 ", "9223372036854775808"],
    "event_timestamp": ["", "now", "2026-01-01", "1970-01-01T00:00:00Z", "2026-01-01 01:00:00"],
    "created_timestamp": ["", "soon", "2026-01-01 02:00:00", "2026-01-01T02:00:00+01:00"],
    "amount": ["-", "99", "-1", "101", "1_0", "nan", "inf", " 7\t", "-0.0", ""],
    "segment": ["", "c", " a ", "\u00a0b"],
    "branch": ["", "A-1", "A-12", "a-1"],
    "opened": ["", "2024-02-30", "2024-02-29", "1800-01-01", "2024-01-01T00:00:00"],
    "seen": ["", "2026-01-01T00:00:00Z", "2026-01-01 00:00:00", "later", "1800-01-01"],
    "paid": ["", "2", "1.0", "01", "yes"],
}


def _lines() -> str:
    """Return good rows, one row for each odd cell, exact copies and conflicts."""
    names, lines = HEAD.split(","), [HEAD]
    for day in (1, 2):
        for number in range(40):
            time = f"2026-01-0{day}T{number % 20:02}:00:00Z"
            row = f"{number % 37 + 100 * day},{number % 3},{time},{time},{number % 5},a,B-2,,,1"
            lines += [row] * (2 if number % 11 == 0 else 1)
            if number % 13 == 0:
                lines.append(row.replace(",a,", ",b,"))
        time = f"2026-01-0{day}T05:00:00Z"
        good = f"900,3,{time},{time},1,b,C-3,2024-01-01,2026-01-01T00:00:00Z,0".split(",")
        for place, name in enumerate(names):
            for number, odd in enumerate(ODD[name]):
                cells = [str(1000 + 50 * place + number), *good[1:]]
                cells[place] = f'"{odd}"'
                lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each time that distinct texts are asked."""
    asked: list[int] = []
    real = judged_rows.ask_texts
    monkeypatch.setattr(judged_rows, "ask_texts", lambda *given: asked.append(1) or real(*given))
    return asked


@pytest.mark.parametrize("late", ["next", "refuse"])
def test_rows_come_out_as_judged_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    made = Intake(tmp_path, columns=COLUMNS)
    made.define(columns=COLUMNS, more=f"max_bad: 1\n    late: {late}")
    made.put(_lines())
    for key in KEYS:
        made.ingest(key)
    use_case = made.use_case
    ingested = {
        result.key: IngestOutputs.of(result).sources["orders"]
        for result in made.records.results.of("shop", stage="ingest_data")
    }
    periods = [partitions.period(use_case, key) for key in KEYS]
    asked = _asked(monkeypatch)

    def curate() -> Any:
        return curation.curate(made.lake, use_case, "orders", periods, ingested)

    by_row = curate()
    monkeypatch.setattr(judged_rows, "MANY_ROWS", 0)
    by_text = curate()
    assert asked == [1]
    for key in KEYS:
        assert by_text[key] == by_row[key]
        assert by_text[key].curated.schema == by_row[key].curated.schema
        assert by_text[key].quarantine.schema == by_row[key].quarantine.schema
    rules = {rule for rows in by_row.values() for rule in rows.rules}
    assert {"conflicting_duplicate", "event_timestamp: mixed_time_zones"} <= rules
    assert len(rules) > 20
    assert all(rows.duplicates and rows.repeated for rows in by_row.values())


COMPUTED = """
      order_id: {type: int64}
      customer_id: {type: int64, nullable: false}
      amount: {type: float64}
      day: {type: date, sql: "CAST(event_timestamp AS DATE)"}
      twice: {type: float64, sql: "amount * 2", max: 50}
      shown: {type: string, sql: "customer_id || '/' || amount"}
      paid: {type: int64}"""


def test_computed_columns_read_what_distinct_texts_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Intake(tmp_path, columns=COMPUTED)
    made.define(columns=COMPUTED, more="max_bad: 1")
    lines = [
        f"{number},{number % 3},2026-01-01T{number % 20:02}:00:00Z,2026-01-01T20:30:00Z,"
        f"{['', 'x', ' 7', '30', '1.5'][number % 5]},1"
        for number in range(60)
    ]
    head = "order_id,customer_id,event_timestamp,created_timestamp,amount,paid"
    made.put("\n".join([head, *lines]) + "\n")
    made.ingest(KEYS[0])
    use_case = made.use_case
    (result,) = made.records.results.of("shop", stage="ingest_data")
    ingested = {KEYS[0]: IngestOutputs.of(result).sources["orders"]}
    periods = [partitions.period(use_case, KEYS[0])]
    by_row = curation.curate(made.lake, use_case, "orders", periods, ingested)
    asked = _asked(monkeypatch)
    monkeypatch.setattr(judged_rows, "MANY_ROWS", 0)
    by_text = curation.curate(made.lake, use_case, "orders", periods, ingested)
    assert asked == [1]
    assert by_text == by_row
    assert set(by_row[KEYS[0]].rules) == {"amount: not_float64", "twice: above_max"}
    assert set(by_row[KEYS[0]].curated["shown"].to_pylist()) >= {None, "1/1.5"}
