"""Versions of features, and which partition is online."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from include.errors import Conflict
from include.records.records import Records


def test_a_feature_set_is_its_definition(records: Records) -> None:
    records.feature_sets.add("loans", "v2", {"b": {"sql": "SELECT 1"}, "a": 1})
    there = records.feature_sets.add("loans", "v2", {"a": 1, "b": {"sql": "SELECT 1"}})
    assert records.feature_sets.get("loans", "v2") == there
    with pytest.raises(Conflict, match="v2 has another definition"):
        records.feature_sets.add("loans", "v2", {"a": 2})
    records.feature_sets.add("loans", "v1", {})
    assert [row.version for row in records.feature_sets.of("loans")] == ["v1", "v2"]
    assert records.feature_sets.get("loans", "v3") is None


def test_the_online_watermark_never_falls(records: Records) -> None:
    assert records.feature_sets.online("loans", "v1") is None
    records.feature_sets.advance("loans", "v1", "2026-03-02", None)
    records.feature_sets.advance("loans", "v1", "2026-03-02", None)  # a retry
    records.feature_sets.advance("loans", "v1", "2026-03-03", "2026-03-02")
    for key, expect in (
        ("2026-03-02", "2026-03-03"),
        ("2026-03-04", "2026-03-02"),
        ("2026-03-04", None),
    ):
        with pytest.raises(Conflict, match=r"online rows of v1 are of 2026-03-03"):
            records.feature_sets.advance("loans", "v1", key, expect)
    assert (
        records.feature_sets.online("loans", "v1"),
        records.feature_sets.online("loans", "v2"),
    ) == ("2026-03-03", None)


def test_of_two_advances_at_once_one_wins(records: Records) -> None:
    def advance(day: int) -> bool:
        try:
            records.feature_sets.advance("loans", "v1", f"2026-03-{day:02d}", None)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(advance, range(1, 9))) == 1
