"""A partition is blocked by what fails, and its reason says what and how to mend it."""

from __future__ import annotations

from typing import Any

from include.config.use_case_file import parse
from include.validation import findings
from include.validation.partition_check import PartitionCheck
from tests.builders.intake import COLUMNS, YAML
from tests.validation.test_contract import PERIOD
from tests.validation.test_findings import FOUND

USE_CASE = parse(YAML.format(path="orders.csv", more="", columns=COLUMNS))
PROFILE = findings.profile("orders", FOUND, PERIOD)
BAD_ROWS = "orders: share of bad rows"


def own(severity: str | None = None, *, success: bool = False) -> dict[str, Any]:
    config = {"type": "expect_x", "kwargs": {"column": "amount"}, "meta": {"source": "orders"}}
    if severity is not None:
        config["severity"] = severity
    return {"success": success, "expectation_config": config}


def test_a_sound_partition_is_not_blocked_and_has_no_reason() -> None:
    check = PartitionCheck({"orders": FOUND}, PROFILE, [], [own(success=True), own("warning")])
    assert (check.blocked, check.reason(USE_CASE)) == (False, "")


def test_a_failed_expectation_blocks_with_the_words_of_its_source() -> None:
    reason = PartitionCheck({"orders": FOUND}, PROFILE, [BAD_ROWS]).reason(USE_CASE)
    assert reason.startswith("blocked: source orders: 2 of 4 rows are bad")
    assert "orders: share of bad rows is" not in reason, "it is told once, in words"
    assert reason.endswith("or change the contract in the use case")


def test_what_no_source_explains_is_named_with_its_value() -> None:
    check = PartitionCheck({}, {"people: rows": 0}, ["people: rows"])
    assert "blocked: people: rows is 0. See `evergreen quarantine list`" in check.reason(USE_CASE)


def test_a_persons_expectation_blocks_unless_it_is_a_warning() -> None:
    check = PartitionCheck({}, {}, [], [own("warning"), own()])
    assert check.blocked
    assert "expect_x {'column': 'amount'} of orders failed" in check.reason(USE_CASE)
