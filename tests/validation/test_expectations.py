"""Expectations: what the built suite asks, and what a person's own suite may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError
from include.validation.expectations import data_docs, describe_failure, failures, limits
from tests.builders.intake import Intake


def test_an_expectation_that_raised_is_told_as_such() -> None:
    config = {
        "type": "expect_column_mean_to_be_between",
        "kwargs": {"column": "x"},
        "meta": {"source": "orders"},
    }
    failed = {
        "expectation_config": config,
        "success": False,
        "exception_info": {"raised_exception": False},
    }
    assert describe_failure(failed).endswith("of orders failed")
    raised = {"('x', 'y')": {"raised_exception": True, "exception_message": "no column\n x"}}
    assert describe_failure({**failed, "exception_info": raised}).endswith(
        "could not be computed (no column x); mend it in the suite"
    )


def suite(made: Intake, *expectations: dict[str, Any]) -> None:
    made.put(json.dumps({"expectations": list(expectations)}), "expectations/shop.json")


def test_a_persons_suite_blocks_or_warns_and_is_part_of_the_memo(made: Intake) -> None:
    assert made.validate().state == "done"
    low = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "amount", "max_value": 15},
    }
    suite(made, {**low, "severity": "warning"})
    warned = made.run("validate_data", "2026-01-01")
    assert (warned.state, warned.reused) == ("done", False)
    result = json.loads((Path(warned.outputs["report"]) / "result.json").read_text())
    assert result["success"] is False
    suite(made, low)
    report = made.run("validate_data", "2026-01-01")
    assert report.state == "blocked"
    assert "expect_column_values_to_be_between" in report.reason
    suite(made, {"type": "expect_nothing_like_it"})
    with pytest.raises(ConfigError, match="the suite of orders is refused"):
        made.run("validate_data", "2026-01-01")
    made.put("[]", "expectations/shop.json")
    with pytest.raises(ConfigError, match="is no suite"):
        made.run("validate_data", "2026-01-01")


def test_of_several_partitions_those_fail_whose_own_row_is_outside(made: Intake) -> None:
    made.define(more="max_bad: 0.1\n    min_rows: 2\n    max_rows: 9")
    rows, bad = "orders: rows", "orders: share of bad rows"
    sound = {limit.column: 0.0 for limit in limits(made.use_case)} | {rows: 2}
    profiles = {
        "2026-01-01": sound,
        "2026-01-02": sound | {rows: 1},
        "2026-01-03": sound | {rows: 10, bad: 0.2},
        "2026-01-04": sound | {bad: None},
    }
    expected = {
        "2026-01-01": [],
        "2026-01-02": [rows],
        "2026-01-03": [rows, bad],
        "2026-01-04": [],
    }
    told, _ = failures(made.use_case, profiles)
    assert told == expected
    for key, profile in profiles.items():
        assert failures(made.use_case, {key: profile})[0] == {key: expected[key]}
    assert failures(made.use_case, dict(reversed(profiles.items())))[0] == expected


def test_the_page_is_of_the_last_partition_and_shows_what_was_observed(made: Intake) -> None:
    sound = {limit.column: 0.0 for limit in limits(made.use_case)}
    last = sound | {"orders: rows": 12_345, "orders: share of bad rows": 0.0625}
    _, result = failures(made.use_case, {"2026-01-01": sound, "2026-01-02": last})
    page = data_docs(result, "shop")
    assert "12,345" in page or "12345" in page
    assert "0.0625" in page
