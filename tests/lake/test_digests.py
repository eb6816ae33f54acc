"""Digests are of content: of values and types, whatever the order and layout of the rows."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from include.lake.digests import combine, digest
from include.lake.tables import Lake


def test_the_digest_is_of_content_alone(lake: Lake) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    rows = pa.table(
        {
            "id": [3, 1, 2],
            "name": ["c", None, "b"],
            "x": [0.0, math.nan, None],
            "at": pa.array([when] * 3, pa.timestamp("ns", tz="UTC")),
        }
    )
    expected = digest(rows, sort_by=["id"])
    assert digest(rows.take([2, 0, 1]), sort_by=["id"]) == expected
    assert digest(pa.concat_tables([rows.slice(0, 1), rows.slice(1)]), sort_by=["id"]) == expected
    assert digest(rows.select(["at", "x", "name", "id"]), sort_by=["id"]) == expected
    negative_zero = rows.set_column(2, "x", pa.array([-0.0, math.nan, None], pa.float64()))
    assert digest(negative_zero, sort_by=["id"]) == expected
    lake.replace("u/raw/a", "2026-01-01", rows)
    assert digest(lake.read("u/raw/a"), sort_by=["id"]) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"id": [1, 2], "name": ["ab", "c"]},
        {"id": [1, 2], "name": ["a", None]},
        {"id": [1, 2], "name": ["a", ""]},
        {"id": [1, 3], "name": ["a", "bc"]},
        {"id": [1.5, 2], "name": ["a", "bc"]},
        {"id": [1, 2], "other": ["a", "bc"]},
        {"id": [1], "name": ["a"]},
    ],
)
def test_the_digest_tells_other_content_apart(other: dict[str, list[object]]) -> None:
    assert digest(pa.table({"id": [1, 2], "name": ["a", "bc"]}), sort_by=["id"]) != digest(
        pa.table(other), sort_by=["id"]
    )


def test_equal_keys_do_not_make_the_digest_depend_on_order() -> None:
    rows = pa.table({"id": [1, 1, 1], "x": ["c", "a", "b"]})
    assert digest(rows, sort_by=["id"]) == digest(rows.take([2, 1, 0]), sort_by=["id"])
    assert combine(["a", "b"]) != combine(["ab"])
