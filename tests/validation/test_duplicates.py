"""Rows that repeat a key and a created time, and decisions of one moment."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.config.use_case_sources import Source
from include.lake.sql import TIMESTAMP, connect
from include.validation.duplicates import (
    CONFLICT,
    DUPLICATE,
    count_repeated,
    find_repeated_keys,
    mark_doubled,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = Source.model_validate(
    {
        "path": "a.csv",
        "key": ["id"],
        "columns": {
            "id": {"type": "int64"},
            "who": {"type": "string"},
            "amount": {"type": "float64"},
        },
    }
)


def rows(
    values: list[tuple[int, float | None]], *, hours: list[int] | None = None, who: str = "a"
) -> pa.Table:
    """Return good rows of one partition with these keys and amounts, in the order of their file."""
    many = len(values)
    created = [AT + timedelta(hours=hour) for hour in hours or [0] * many]
    return pa.table(
        {
            "partition": pa.array(["p"] * many).dictionary_encode(),
            "source_file": pa.array(["f"] * many).dictionary_encode(),
            "source_row": list(range(many)),
            "id": pa.array([key for key, _ in values], pa.int64()),
            "who": [who] * many,
            "amount": pa.array([amount for _, amount in values], pa.float64()),
            "event_timestamp": pa.array([AT] * many, TIMESTAMP),
            "created_timestamp": pa.array(created, TIMESTAMP),
        }
    )


def marked(given: pa.Table, rule: list[str | None] | None = None) -> list[str | None]:
    told = pa.chunked_array([pa.array(rule or [None] * len(given), pa.string())])
    with connect() as con:
        again = find_repeated_keys(con, SOURCE, given, told)
        return mark_doubled(con, SOURCE, given, told, again).to_pylist()


def test_of_equal_rows_one_stays_and_of_conflicting_ones_the_last_by_value() -> None:
    given = rows([(1, 5.0), (1, 5.0), (1, 7.0), (2, 1.0), (2, None), (3, 9.0)])
    assert marked(given) == [CONFLICT, DUPLICATE, None, None, CONFLICT, None]
    # One that fails another rule conflicts with none.
    bad = [None, None, "amount: above_max", None, None, None]
    assert marked(given, bad) == [None, DUPLICATE, "amount: above_max", None, CONFLICT, None]


def test_a_later_row_of_a_key_is_its_correction() -> None:
    assert marked(rows([(1, 5.0), (1, 7.0)], hours=[0, 1])) == [None, None]


@pytest.mark.parametrize("in_order", [True, False])
def test_among_many_rows_just_those_are_found_that_repeat(in_order: bool) -> None:
    keys = np.arange(3000)
    if not in_order:
        keys = np.random.default_rng(0).integers(0, 2000, 3000)
    found = marked(rows([(int(key), 1.0) for key in keys]))
    seen: set[int] = set()
    expected: list[str | None] = []
    for key in keys.tolist():
        expected.append(DUPLICATE if key in seen else None)
        seen.add(key)
    assert found == expected


def test_decisions_that_share_a_moment_are_counted() -> None:
    many = np.random.default_rng(0).integers(0, 500, 2000).tolist()
    given = rows([(number, 1.0) for number in range(2000)])
    given = given.set_column(4, "who", pa.array([f"w{one}" for one in many]).dictionary_encode())
    shared = [count for count in Counter(many).values() if count > 1]
    with connect() as con:
        told: dict[str, Any] = count_repeated(con, SOURCE, "who", given, np.arange(2000))
        assert told == {"p": (sum(shared) - len(shared), sum(shared))}
        assert count_repeated(con, SOURCE, "who", given, np.arange(1)) == {}
