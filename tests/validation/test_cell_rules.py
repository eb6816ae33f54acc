"""Which rules a column's cells have, and whose text alone decides them."""

from __future__ import annotations

from typing import Any

import pytest

from include.config.use_case_sources import Column, Source
from include.lake.sql import connect
from include.validation import cell_rules


def source(**columns: Any) -> Source:
    return Source.model_validate(
        {"path": "a.csv", "key": ["id"], "columns": {"id": {"type": "int64"}} | columns}
    )


def test_a_key_and_the_entity_of_events_must_be_there() -> None:
    of = source(who={"type": "string"}, may={"type": "string", "nullable": True})
    assert cell_rules.key_rules(of, "id", None) == {"required": True, "key": True}
    assert cell_rules.key_rules(of, "who", "who") == {"required": True, "key": True}
    assert cell_rules.key_rules(of, "who", None) == {"required": False, "key": False}
    assert cell_rules.key_rules(of, "may", "may") == {"required": False, "key": True}


def test_only_a_column_that_can_fail_has_rules() -> None:
    free, bound = Column(type="string"), Column(type="string", regex="x")
    assert [cell_rules.has_rules(column, required=False) for column in (free, bound)] == [
        False,
        True,
    ]
    assert cell_rules.has_rules(free, required=True)
    assert cell_rules.has_rules(Column(type="int64"), required=False)


@pytest.mark.parametrize(
    ("text", "fails"),
    [("007", True), ("+01", True), ("-01", True), ("0", False), ("10", False), ("+7", False)],
)
def test_a_number_that_is_a_name_has_no_leading_zeros(text: str, fails: bool) -> None:
    column = Column(type="int64")
    checks = cell_rules.column_checks("id", column, source(), "t", "1", key=True)
    (zeros,) = [check for check in checks if check.rule == "id: leading_zeros"]
    with connect() as con:
        found = con.execute(f"SELECT coalesce({zeros.bad}, false) FROM (SELECT ? AS t)", [text])
        assert found.fetchall() == [(fails,)]


def test_a_computed_value_hangs_on_the_row_and_a_delivered_one_on_its_text() -> None:
    delivered = cell_rules.column_checks("x", Column(type="float64", min=0), source(), "t", "v")
    assert {check.column for check in delivered} == {"x"}
    computed = Column(type="float64", min=0, sql="id * 2")
    asked = cell_rules.column_checks("x", computed, source(), "v", "v")
    assert {check.column for check in asked} == {None}
    mixed = [("2026-01-01", "at", True)]
    zones = cell_rules.time_checks("at", "t", "v", None, mixed)
    assert [check.column for check in zones if "mixed" in check.rule] == [None]
