"""Raw rows are judged in their order; zones are looked at where they may be mixed."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from include.errors import ConfigError
from include.lake.sql import TIMESTAMP, connect
from include.point_in_time.partitions import period
from include.validation import judged_rows
from tests.builders.intake import COLUMNS, Intake

KEY = "2026-01-01"
NOON = "2026-01-01T12:00:00"


def raw(*times: str | None) -> pa.Table:
    many = len(times)
    texts = {
        "order_id": [str(number) for number in range(many)],
        "customer_id": ["1"] * many,
        "amount": ["10"] * many,
        "paid": ["1"] * many,
        "event_timestamp": list(times),
        "created_timestamp": [f"{NOON}Z"] * many,
        "source_file": ["a.csv"] * many,
    }
    arrived = pa.array([datetime(2026, 1, 1, 12, tzinfo=UTC)] * many, TIMESTAMP)
    return pa.table(
        {name: pa.array(given, pa.string()) for name, given in texts.items()}
        | {
            "source_row": pa.array(range(many), pa.int64()),
            "arrived_at": arrived,
            "partition": pa.array([KEY] * many).dictionary_encode(),
        }
    )


@pytest.mark.parametrize("many_rows", [0, 1000], ids=["by text", "by row"])
@pytest.mark.parametrize(
    ("times", "rules"),
    [
        ([f"{NOON}Z", f"{NOON}Z"], [None, None]),
        ([f"{NOON}Z", NOON, f"{NOON}Z"], [None, "mixed_time_zones", None]),
        ([NOON, f"{NOON}+00:00", NOON], [None, "mixed_time_zones", None]),
        ([f"{NOON}Z", "Z", None], [None, "not_timestamp", "null"]),
        ([f"{NOON}Z ", f"{NOON}Z"], [None, None]),
    ],
)
def test_times_with_and_without_zone_do_not_mix(
    made: Intake,
    monkeypatch: pytest.MonkeyPatch,
    many_rows: int,
    times: list[str | None],
    rules: list[str | None],
) -> None:
    monkeypatch.setattr(judged_rows, "MANY_ROWS", many_rows)
    use_case = made.use_case
    with connect() as con:
        judged = judged_rows.judge_rows(
            con, use_case, "orders", raw(*times), [period(use_case, KEY)]
        )
    expected = [rule and f"event_timestamp: {rule}" for rule in rules]
    assert judged["rule"].to_pylist() == expected


def test_a_form_that_is_none_is_the_contracts_error(made: Intake) -> None:
    made.define(
        columns=COLUMNS.replace("order_id: {type: int64", "order_id: {type: int64, regex: '(a'")
    )
    use_case = made.use_case
    with connect() as con, pytest.raises(ConfigError, match="source orders: the contract fails"):
        judged_rows.judge_rows(con, use_case, "orders", raw(f"{NOON}Z"), [period(use_case, KEY)])


@pytest.mark.parametrize("many_rows", [0, 1_000_000], ids=["by text", "by row"])
def test_each_row_of_many_keeps_its_own_values(
    made: Intake, monkeypatch: pytest.MonkeyPatch, many_rows: int
) -> None:
    """DuckDB joins to compare with five words, and would give the rows in another order."""
    monkeypatch.setattr(judged_rows, "MANY_ROWS", many_rows)
    columns = COLUMNS.replace('"0", "1"', '"0", "1", "2", "3", "4", "5"').replace(
        "order_id: {type: int64", "order_id: {type: int64, null_values: [a, b, c, d, e]"
    )
    made.define(columns=columns)
    use_case, many = made.use_case, 300_000
    given = raw(*[f"{NOON}Z"] * many)
    with connect() as con:
        judged = judged_rows.judge_rows(con, use_case, "orders", given, [period(use_case, KEY)])
    assert np.array_equal(judged["order_id"].to_numpy(), np.arange(many))
    assert judged["rule"].null_count == many
