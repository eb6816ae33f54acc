"""What Evidently is given: few rows, finite numbers, escaped text."""

from __future__ import annotations

import pyarrow as pa

from include.monitoring import distributions


def test_a_sample_is_spread_evenly_over_the_rows() -> None:
    rows = pa.table({"x": list(range(1000))})
    values = distributions._sample(rows, {"x": "int64"}, 5)["x"].tolist()
    assert values == [0.0, 249.0, 499.0, 749.0, 999.0]
    assert len(distributions._sample(rows, {"x": "int64"}, 1000)) == 1000


def test_numbers_are_finite_and_text_is_escaped_and_short() -> None:
    rows = pa.table({"x": [1e300, float("inf"), 2.0], "t": ["<b>", None, "y" * 500]})
    sample = distributions._sample(rows, {"x": "float64", "t": "string"}, 10)
    assert sample["x"].isna().tolist() == [True, True, False]
    assert sample["t"][0] == "&lt;b&gt;"
    assert sample["t"][1] is None
    assert len(sample["t"][2]) == distributions.LONGEST_TEXT


def test_where_no_column_has_values_on_both_sides_there_is_no_page() -> None:
    types = {"x": "float64", "y": "float64"}
    before = pa.table({"x": pa.array([None], pa.float64()), "y": [1.0]})
    now = pa.table({"x": [1.0]})
    assert distributions.page(before, now, types, limit=10) is None
