"""Tables as numbers: what a schema learns, the rows that are kept as golden, and odd columns."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from include.config.use_case_file import parse
from include.errors import SourceError
from include.models import matrix
from include.models.encoding import Feature, Schema, encode
from include.models.kinds import Fitted
from include.models.matrix import choose_golden_rows, columns_of, floats, labels_of, learn_schema
from tests.builders.judging import KNOBS, YAML
from tests.builders.small_model import USE_CASE


def test_rows_and_columns_are_encoded_alike(fitted: Fitted, frame: pa.Table) -> None:
    schema = fitted.predictor.schema
    by_rows = encode(frame.select(schema.names).to_pylist(), schema)
    by_columns = encode(columns_of(frame, schema), schema)
    np.testing.assert_array_equal(by_rows, by_columns)


def test_codes_are_those_of_the_most_frequent_categories(
    frame: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "MAX_CATEGORIES", 2)
    schema = learn_schema(frame, USE_CASE, "set")
    (region,) = (feature for feature in schema.features if feature.name == "region")
    counts = sorted(
        ((value.as_py(), count.as_py()) for value, count in _counted(frame.column("region"))),
        key=lambda pair: (-pair[1], pair[0]),
    )
    assert region.codes == {value: code for code, value in enumerate(sorted(dict(counts[:2])))}
    assert (region.missing, region.unknown) == (2, 3)
    assert (schema.slope, schema.offset, schema.golden) == (1.0, 0.0, "")
    assert [feature.name for feature in schema.features] == list(USE_CASE.trained_features)


@pytest.mark.parametrize(
    ("of_source", "of_column", "told"),
    [
        ("", "", ()),
        ("[' NA', '?', '']", "", ("?", "NA")),
        ("[NA]", ", null_values: [none]", ("none",)),
        ("[NA]", ", null_values: []", ()),
    ],
)
def test_a_schema_keeps_the_texts_that_mean_no_value(
    frame: pa.Table, of_source: str, of_column: str, told: tuple[str, ...]
) -> None:
    text = YAML.format(**{**KNOBS, "more": ", member: bool"})
    text = text.replace("region: {type: string}", f"region: {{type: string{of_column}}}")
    if of_source:
        text = text.replace("    columns:", f"    null_values: {of_source}\n    columns:", 1)
    schema = learn_schema(frame, parse(text), "set")
    (region,) = (feature for feature in schema.features if feature.name == "region")
    assert region.null_values == told


def _counted(column: pa.ChunkedArray) -> list[tuple[pa.Scalar, pa.Scalar]]:
    counts = column.drop_null().value_counts()
    return list(zip(counts.field("values"), counts.field("counts"), strict=True))


def test_golden_rows_are_spread_over_the_frame_and_hold_no_number_that_json_lacks() -> None:
    schema = Schema(
        "u",
        "f",
        (Feature("x", "float64"), Feature("c", "string", {"a": 0}, 1, 2)),
        1.0,
        0.0,
        0.5,
        "",
    )
    values = [math.inf, *range(1, 100)]
    rows = choose_golden_rows(
        pa.table({"x": pa.array(values, pa.float64()), "c": ["a"] * 100}), schema
    )
    assert [row["x"] for row in rows[:12]] == [None, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    assert rows[12:] == [
        {"x": None, "c": None},
        {"x": None, "c": matrix.UNSEEN},
        {"x": None, "c": matrix.UNSEEN},
    ]
    nothing = pa.table({"x": pa.array([], pa.float64()), "c": pa.array([], pa.string())})
    assert choose_golden_rows(nothing, schema) == rows[12:]


def test_numbers_become_doubles_and_nulls_nan() -> None:
    column = pa.chunked_array([pa.array([1, None, 2**53 + 1], pa.int64())])
    np.testing.assert_array_equal(floats(column), [1.0, np.nan, 2.0**53])
    flags = pa.chunked_array([pa.array([True, None, False])])
    np.testing.assert_array_equal(floats(flags), [1.0, np.nan, 0.0])


@pytest.mark.parametrize("wrong", [None, 2.0, 0.5])
def test_a_label_is_0_or_1(wrong: float | None) -> None:
    assert labels_of(pa.table({"label": [0.0, 1.0]})).tolist() == [0.0, 1.0]
    with pytest.raises(SourceError, match="1 labels are neither 0 nor 1"):
        labels_of(pa.table({"label": [0.0, wrong]}))
