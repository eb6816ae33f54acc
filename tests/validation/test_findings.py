"""What was found of a source, as numbers and in words with samples."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from include.config.use_case_file import parse
from include.config.use_case_sources import Source
from include.ingestion.columns import ColumnDiff
from include.lake.sql import TIMESTAMP
from include.validation import findings
from include.validation.curation import CuratedRows
from include.validation.expectations import AGE
from tests.builders.command_line import YAML
from tests.builders.remedy_lines import offered, pasted
from tests.validation.test_contract import PERIOD

AT = datetime(2026, 1, 1, 20, tzinfo=UTC)


def source(**more: Any) -> Source:
    columns = {"id": {"type": "int64"}, "amount": {"type": "float64"}}
    return Source.model_validate({"path": "a.csv", "key": ["id"], "columns": columns} | more)


def curated(ids: list[int]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "amount": pa.array([1.0] * len(ids), pa.float64()),
            "event_timestamp": pa.array([AT] * len(ids), TIMESTAMP),
            "created_timestamp": pa.array([AT] * len(ids), TIMESTAMP),
        }
    )


BAD = pa.table(
    {
        "id": ["9", "8"],
        "amount": ["oops", None],
        "source_file": ["a.csv", "a.csv"],
        "source_row": [4, 5],
        "rule": ["amount: not_float64", "amount: not_float64"],
    }
)
FOUND = CuratedRows(curated([1, 2]), BAD, 4, 0, rules={"amount: not_float64": 2})


def test_shares_are_of_all_rows_and_the_age_is_that_of_the_newest_arrival() -> None:
    profile = findings.profile("orders", FOUND, PERIOD)
    assert profile["orders: rows"] == 4
    assert profile["orders: share of bad rows"] == 0.5
    assert profile["orders.amount: share of bad values"] == 0.5
    assert profile["orders.id: share of bad values"] == 0
    assert profile[f"orders: {AGE}"] == timedelta(hours=6).total_seconds()
    assert f"orders: {AGE}" not in findings.profile("orders", FOUND)


def test_a_partition_without_a_sound_row_is_as_old_as_its_interval() -> None:
    empty = CuratedRows(curated([]), pa.table({}), 0, 0)
    profile = findings.profile("orders", empty, PERIOD)
    assert profile[f"orders: {AGE}"] == timedelta(days=1).total_seconds()
    assert profile["orders: share of bad rows"] == 0


def test_counts_are_what_is_recorded() -> None:
    assert findings.counts(replace(FOUND, rules={"conflicting_duplicate": 3}, repeated=1)) == {
        "quarantined": 2,
        "duplicates": 0,
        "conflicts": 3,
        "repeated": 1,
        "sharing": 0,
        "rules": {"conflicting_duplicate": 3},
    }


def described(found: CuratedRows, **more: Any) -> str:
    profile = findings.profile("orders", found, PERIOD)
    return findings.describe_findings("orders", source(**more), found, profile)


def test_nothing_wrong_needs_no_words() -> None:
    assert described(replace(FOUND, quarantine=BAD.slice(0, 0), rules={})) == ""
    assert described(FOUND, max_bad=0.5) == ""


def test_bad_rows_are_told_with_the_rule_the_values_and_the_place() -> None:
    text = described(FOUND)
    assert text.startswith("source orders: 2 of 4 rows are bad, more than max_bad")
    assert "amount: not_float64 (2 rows, such as 'oops', nothing; a.csv row 4)" in text


def test_each_limit_has_words_of_its_own() -> None:
    diff = ColumnDiff(missing=("amount",), where={"amount": "a.csv"})
    assert "columns differ from the contract: missing 'amount' (in a.csv)" in described(
        replace(FOUND, diff=diff)
    )
    renamed = replace(
        diff,
        extra=("Amt",),
        renamed=(("amount", "Amt"),),
        where={"amount": "a.csv", "Amt": "a.csv"},
    )
    assert "`sources: {orders: {columns: {amount: {type: float64, header: Amt}}}}`" in described(
        replace(FOUND, diff=renamed)
    )
    conflicts = replace(FOUND, rules={"conflicting_duplicate": 4})
    assert "4 rows repeat the key [id] with other values" in described(conflicts)
    repeated = replace(FOUND, repeated=3, sharing=4)
    assert "4 of 4 rows share entity and event_timestamp" in described(repeated)
    assert "4 rows came, expected are 9 to any number" in described(FOUND, min_rows=9)
    assert "4 rows came, expected are 1 to 2" in described(FOUND, max_rows=2)
    assert "arrived 6.0 h before as_of, longer than fresh: 1h" in described(FOUND, fresh="1h")


@pytest.mark.parametrize(
    "found",
    [
        FOUND,
        replace(FOUND, rules={"conflicting_duplicate": 4}),
        replace(FOUND, repeated=3, sharing=4),
        replace(FOUND, rows=0, quarantine=BAD.slice(0, 0)),
        replace(FOUND, diff=ColumnDiff(extra=("x",), where={"x": "a.csv"})),
        replace(
            FOUND,
            diff=ColumnDiff(
                missing=("amount",),
                extra=("Amt: 1",),
                renamed=(("amount", "Amt: 1"),),
                where={"amount": "a.csv", "Amt: 1": "a.csv"},
            ),
        ),
    ],
)
def test_each_finding_offers_lines_that_a_use_case_takes(found: CuratedRows) -> None:
    rows = parse(YAML).sources["rows"].model_copy(update={"fresh": timedelta(hours=1)})
    profile = findings.profile("rows", found, PERIOD)
    text = findings.describe_findings(
        "rows", rows.model_copy(update={"max_bad": 0.0}), found, profile
    )
    lines = offered(text)
    assert lines, text
    for line in lines:
        pasted(YAML, line)


def test_the_line_for_bad_rows_and_for_none_is_just_enough() -> None:
    (line,) = offered(described(FOUND, max_bad=0.1))
    assert line == "sources: {orders: {max_bad: 0.5}}"
    nothing = replace(FOUND, rows=0, rules={}, quarantine=BAD.slice(0, 0))
    assert "`sources: {orders: {empty: allow, min_rows: 0}}`" in described(nothing, min_rows=3)


def test_every_profile_column_but_a_persons_is_described() -> None:
    profile = findings.profile("orders", FOUND, PERIOD)
    assert [column for column in profile if not findings.is_described(column)] == []
    assert not findings.is_described("orders: something else")
