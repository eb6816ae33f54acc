"""The contract's query types rows and names the first rule that each one fails."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from include.config.use_case_sources import Source
from include.lake.sql import TIMESTAMP, connect
from include.point_in_time.partitions import Period
from include.validation import contract

PERIOD = Period(
    key="2026-01-01",
    start=datetime(2026, 1, 1, tzinfo=UTC),
    end=datetime(2026, 1, 2, tzinfo=UTC),
    arrival_start=datetime(2026, 1, 1, 2, tzinfo=UTC),
    as_of=datetime(2026, 1, 2, 2, tzinfo=UTC),
)
SOUND = {
    "id": "1",
    "amount": "5",
    "event_timestamp": "2026-01-01T10:00:00Z",
    "created_timestamp": "2026-01-01T11:00:00Z",
}


def source(**more: Any) -> Source:
    columns = {"id": {"type": "int64"}, "amount": {"type": "float64", "min": 0, "max": 100}}
    return Source.model_validate({"path": "a.csv", "key": ["id"], "columns": columns} | more)


def raw(*changes: dict[str, str | None]) -> pa.Table:
    """Return sound raw rows with these changes."""
    rows = [SOUND | change for change in changes]
    names = {name: None for row in rows for name in row}
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    columns.setdefault("source_file", pa.array(["a.csv"] * len(rows)))
    return pa.table(
        columns
        | {
            "partition": [PERIOD.key] * len(rows),
            "source_row": list(range(1, len(rows) + 1)),
            "arrived_at": pa.array([datetime(2026, 1, 1, 11, tzinfo=UTC)] * len(rows), TIMESTAMP),
        }
    )


def judged(of: Source, *changes: dict[str, str | None], entity: str | None = None) -> list[Any]:
    """Return the rule that each row fails; None for a sound one."""
    rows = raw(*changes)
    with connect() as con:
        con.register("raw", rows)
        con.register("__periods", contract.periods_table([PERIOD]))
        zones = contract.mixed_zones_query(of, rows.column_names, "raw")
        mixed = con.execute(zones).fetchall() if zones else []
        query = contract.judged_query(of, rows.column_names, "raw", mixed, entity=entity)
        found = con.execute(f"SELECT rule FROM ({query}) ORDER BY source_row").fetchall()
    return [rule for (rule,) in found]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, None),
        ({"malformed": "1,2"}, "malformed_row"),
        ({"id": " "}, "id: null"),
        ({"id": "x"}, "id: not_int64"),
        ({"id": "007"}, "id: leading_zeros"),
        ({"amount": "inf"}, "amount: not_finite"),
        ({"amount": "-1"}, "amount: below_min"),
        ({"amount": "101"}, "amount: above_max"),
        ({"amount": None}, None),
        ({"event_timestamp": None}, "event_timestamp: null"),
        ({"event_timestamp": "1970-01-01"}, "event_timestamp: epoch_zero"),
        ({"event_timestamp": "2026-01-02T02:00:00Z"}, "event_timestamp: in_future"),
        ({"event_timestamp": "1850-01-01"}, "event_timestamp: out_of_range"),
        ({"event_timestamp": "soon"}, "event_timestamp: not_timestamp"),
        ({"created_timestamp": "2026-01-01T11:30:00Z"}, "created_timestamp: in_future"),
        ({"created_timestamp": "2026-01-01T10:30:00Z"}, "created_timestamp: late"),
        ({"event_timestamp": "soon", "id": "x"}, "event_timestamp: not_timestamp"),
    ],
)
def test_a_row_fails_by_its_first_rule(change: dict[str, str | None], rule: str | None) -> None:
    assert judged(source(late="refuse"), change) == [rule]


def test_what_came_late_or_by_hand_may_be_created_earlier() -> None:
    early = {"created_timestamp": "2026-01-01T10:30:00Z"}
    marked = [
        early | {"source_file": f"{mark}2025-12-31/a.csv"} for mark in ("late://", "redriven://")
    ]
    assert judged(source(late="refuse"), *marked) == [None, None]
    assert judged(source(late="next"), early) == [None]


def test_times_with_and_without_offset_do_not_mix_and_the_fewer_fail() -> None:
    naive, aware = {"event_timestamp": "2026-01-01T10:00:00"}, {"id": "2"}
    rule = "event_timestamp: mixed_time_zones"
    assert judged(source(), naive, aware, {"id": "3"}) == [rule, None, None]
    assert judged(source(), naive, naive | {"id": "2"}, {"id": "3"})[2] == rule
    redriven = naive | {"source_file": "redriven://2025-12-31/a.csv"}
    assert judged(source(), redriven, aware) == [None, None], "of a time when it wrote otherwise"


def test_allowed_values_and_forms_are_of_the_column() -> None:
    columns = {
        "id": {"type": "int64"},
        "code": {"type": "string", "regex": "[A-Z]{2}"},
        "kind": {"type": "string", "values": ["it's", "b"]},
    }
    of = source(columns=columns)
    rows = [{"code": "AB", "kind": "it's"}, {"code": "ABC"}, {"kind": "c"}, {}]
    assert judged(of, *rows) == [None, "code: no_match", "kind: not_allowed", None]


def test_the_entitys_key_of_events_must_be_there_unless_it_may_be_null() -> None:
    of = source(columns={"id": {"type": "int64"}, "who": {"type": "string"}})
    assert judged(of, {"who": None}, entity="who") == ["who: null"]
    free = source(columns={"id": {"type": "int64"}, "who": {"type": "string", "nullable": True}})
    assert judged(free, {"who": None}, entity="who") == [None]


def test_no_time_column_means_no_question_of_zones() -> None:
    static = source(kind="static", valid_from="2026-01-01")
    assert contract.mixed_zones_query(static, SOUND, "raw") is None
