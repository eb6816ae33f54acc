"""Rows packed by columns are, byte by byte, those packed one by one."""

from __future__ import annotations

import math
import random
from typing import Any

import pyarrow as pa
import pytest

from include.features import packed_rows
from include.features.online_rows import pack, rows_digest
from include.features.packed_rows import PackedRows

BOUNDS = [0, 31, 32, 127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
WHOLE = sorted({sign * bound + step for bound in BOUNDS for sign in (1, -1) for step in (-1, 0, 1)})
TEXTS = ["", "a", "ä☃", "x" * 31, "x" * 32, "ä" * 16, "x" * 255, "x" * 256, "x" * 65_536, "a\0b"]
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "whole": (
        pa.int64(),
        [None, -(2**63), *(each for each in WHOLE if -(2**63) <= each < 2**63)],
    ),
    "number": (pa.float64(), [None, 0.0, -0.0, 0.1, math.inf, -math.inf, math.nan, 5e-324]),
    "text": (pa.string(), [None, *TEXTS]),
    "flag": (pa.bool_(), [None, True, False]),
}


def table(names: list[str], size: int) -> pa.Table:
    """Return rows of chosen columns that go round their values, each at its own pace."""
    columns = {
        f"{name}_{place}": pa.array(
            [COLUMNS[name][1][row % len(COLUMNS[name][1])] for row in range(size)],
            COLUMNS[name][0],
        )
        for place, name in enumerate(names)
    }
    entities = pa.array([f"é{row:04}" for row in range(size)])
    times = pa.array([1_700_000_000_000_000 * (row % 3 - 1) for row in range(size)], pa.int64())
    return pa.table({"entity": entities, "event_ts": times, **columns})


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["whole"],
        ["number"],
        ["text"],
        ["flag"],
        list(COLUMNS) * 4,
        list(COLUMNS) * 4 + ["flag"],
    ],
    ids=lambda names: f"{len(names)} {names[0] if len(names) == 1 else ''}",
)
def test_packed_by_columns_is_packed_by_rows(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 15 and of 16 values an array begins in another form."""
    monkeypatch.setattr(packed_rows, "ROWS_AT_ONCE", 7)
    rows = table(names, 64)
    each = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    expected = [pack(entity, at, values) for entity, at, *values in each]
    packed = PackedRows(rows)
    assert list(packed) == expected
    assert packed.digest() == rows_digest(expected)


def test_random_whole_numbers_have_their_shortest_form() -> None:
    chance = random.Random(5)
    values = [chance.randrange(-(2**bits), 2**bits) for bits in range(64) for _ in range(20)]
    rows = pa.table(
        {
            "entity": ["a"] * len(values),
            "event_ts": pa.array([0] * len(values)),
            "v": pa.array(values, pa.int64()),
        }
    )
    assert [row[2] for row in PackedRows(rows)] == [pack("a", 0, [value])[2] for value in values]


def test_no_row_has_the_digest_of_none() -> None:
    packed = PackedRows(table(["whole"], 0))
    assert list(packed) == []
    assert packed.digest() == rows_digest([])
