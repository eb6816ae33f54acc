"""Encoding: values to numbers, the same for a row of a request and a column of a table."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from include.errors import ArtefactError
from include.models.encoding import Feature, InvalidFeature, Schema, encode, encoder

NUMBER = Feature("x", "float64")
CATEGORY = Feature("c", "string", {"a": 0, "b": 1}, missing=2, unknown=3)
SCHEMA = Schema("u", "f", (NUMBER, CATEGORY), 1.5, -0.5, 0.4, "sha256:0")


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2.0), (True, 1.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (np.bool_(False), 0.0)],
)
def test_numbers_of_all_types_are_doubles(value: object, number: float) -> None:
    assert encoder(NUMBER)(value) == number


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400])
def test_what_is_no_finite_number_is_missing(value: object) -> None:
    assert math.isnan(encoder(NUMBER)(value))


@pytest.mark.parametrize(
    ("value", "code"),
    [("a", 0.0), ("b", 1.0), (np.str_("b"), 1.0), ("z", 3.0), (None, 2.0), (math.nan, 2.0)],
)
def test_categories_have_codes_also_the_missing_and_the_unseen(value: object, code: float) -> None:
    assert encoder(CATEGORY)(value) == code


@pytest.mark.parametrize(
    ("value", "code"),
    [(" a", 0.0), ("b\u00a0", 1.0), ("", 2.0), (" \t", 2.0), ("NA", 2.0), ("NA ", 2.0), ("n", 3.0)],
)
def test_a_text_is_read_as_ingestion_reads_it(value: str, code: float) -> None:
    assert encoder(replace(CATEGORY, null_values=("NA",)))(value) == code


@pytest.mark.parametrize("value", ["\u00fc", "u\u0308", "\ufeffu\u0308 ", "\u00fc\u00ad"])
def test_letters_that_look_alike_are_one_category(value: str) -> None:
    assert encoder(replace(CATEGORY, codes={"\u00fc": 0}))(value) == 0.0


def test_a_category_that_is_no_trimmed_text_stays_one() -> None:
    made = Feature("c", "string", {"": 0, " a": 1, "NA": 2}, 3, 4, ("NA",))
    assert [encoder(made)(value) for value in ("", " ", " a", "a", "NA", None)] == [
        0,
        0,
        1,
        4,
        2,
        3,
    ]


@pytest.mark.parametrize(
    ("feature", "value"), [(NUMBER, "2"), (NUMBER, [2]), (CATEGORY, 1), (CATEGORY, b"a")]
)
def test_a_value_of_a_wrong_type_names_its_feature(feature: Feature, value: object) -> None:
    with pytest.raises(
        InvalidFeature, match=rf"'{feature.name}' must be .*not {type(value).__name__}"
    ):
        encoder(feature)(value)


def test_rows_and_columns_give_the_same_matrix() -> None:
    rows = [{"x": 1.0, "c": "a"}, {"x": math.inf, "c": None}, {"x": None, "c": "new"}]
    columns = {"x": np.array([1.0, np.inf, np.nan]), "c": ["a", None, "new"]}
    expected = [[1.0, 0.0], [np.nan, 2.0], [np.nan, 3.0]]
    np.testing.assert_array_equal(encode(rows, SCHEMA), expected)
    np.testing.assert_array_equal(encode(columns, SCHEMA), expected)
    assert encode([], SCHEMA).shape == (0, 2)
    with pytest.raises(InvalidFeature, match="'c' is missing; send null"):
        encode([{"x": 1.0}], SCHEMA)


def test_a_schema_is_read_as_it_was_written() -> None:
    text = SCHEMA.to_json()
    assert Schema.from_json(text) == SCHEMA
    assert Schema.from_json(text).to_json() == text
    assert (SCHEMA.names, SCHEMA.categorical) == (["x", "c"], [1])
    assert "null_values" not in text, "bundles without any keep their digest"
    told = replace(SCHEMA, features=(NUMBER, replace(CATEGORY, null_values=("?", "NA"))))
    assert Schema.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("format", 2),
        ("features", []),
        ("threshold", "high"),
        ("calibration", {"method": "isotonic", "slope": 1, "offset": 0}),
        ("calibration", {"method": "platt", "slope": 1e999, "offset": 0}),
    ],
)
def test_a_schema_of_another_form_is_refused(part: str, value: object) -> None:
    content = {**json.loads(SCHEMA.to_json()), part: value}
    with pytest.raises(ArtefactError, match="no schema that this version reads"):
        Schema.from_json(json.dumps(content))
