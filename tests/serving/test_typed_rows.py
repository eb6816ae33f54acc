"""Rows that one struct reads: order, types, and the text that the log gets."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from include.serving.typed_rows import RowReader, request_decoder, row_reader, row_writer

TYPES = {"class": "float64", "jobs": "int64", "region": "string", "new": "bool", "f0": "float64"}
ROW = {"class": 1.5, "jobs": 2, "region": "north", "new": True}


def reader(*features: str) -> RowReader:
    made = row_reader(features or tuple(ROW), TYPES)
    assert made is not None
    return made


def read(text: str, *features: str) -> tuple[tuple[Any, ...], str]:
    values, content = reader(*features).read(msgspec.Raw(text.encode()))
    return values, content.decode()


def test_values_stand_in_the_order_of_the_model() -> None:
    text = '{"new": true, "region": "north", "class": 1.5, "jobs": 2}'
    assert read(text) == ((1.5, 2, "north", True), text)
    assert read(text, "region", "class")[0] == ("north", 1.5)


def test_what_only_another_model_reads_may_be_there_and_is_kept() -> None:
    text = json.dumps({**ROW, "f0": 0.25})
    assert read(text) == (tuple(ROW.values()), text)
    assert read(json.dumps({"f0": None}), "f0") == ((None,), '{"f0": null}')


def test_a_whole_number_may_be_written_as_a_float() -> None:
    text = json.dumps({**ROW, "jobs": 2.0})
    assert read(text) == ((1.5, 2.0, "north", True), text)


def test_nulls_are_read_as_such() -> None:
    assert read(json.dumps(dict.fromkeys(ROW)))[0] == (None,) * 4


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"f0": 1, "f0": 2}', '{"f0":2}'),
        ('{"f0":\n 2}', '{"f0":2}'),
        ('{"f\\u0030": 2}', '{"f0":2}'),
        ('{"f0": 2, "region": "a\\"b"}', '{"f0":2,"region":"a\\"b"}'),
        ('{"f0": 2, "region": null, "region": "x"}', '{"f0":2,"region":"x"}'),
        ('{"f0": 2, "region": "x", "region": null}', '{"f0":2,"region":null}'),
    ],
)
def test_the_log_gets_what_was_read_where_the_text_could_be_read_otherwise(
    text: str, kept: str
) -> None:
    """A reader that takes the first of two equal names would see another row than the model."""
    values, content = read(text, "f0")
    assert values == (2,)
    assert {k: v for k, v in json.loads(content).items() if k in ("f0", "region")} == json.loads(
        kept
    )
    assert "\n" not in content


@pytest.mark.parametrize(
    "changed",
    [
        {"jobs": 1.5},
        {"jobs": 1e300},
        {"jobs": float(1 << 63)},
        {"jobs": 2.0, "more": 1},
        {"jobs": True},
        {"jobs": 1 << 63},
        {"class": True},
        {"class": 10**400},
        {"class": 1 << 63},
        {"class": "1"},
        {"new": 1},
        {"region": 1},
        {"region": "x" * 1025},
        {"more": 1},
        {"jobs": [1]},
    ],
)
def test_what_does_not_fit_is_left_to_the_long_way(changed: dict[str, Any]) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(json.dumps({**ROW, **changed}))


@pytest.mark.parametrize("left_out", list(ROW))
def test_every_feature_of_the_model_must_be_there(left_out: str) -> None:
    row = {name: value for name, value in ROW.items() if name != left_out}
    with pytest.raises(msgspec.DecodeError):
        read(json.dumps(row))


def test_a_swap_between_equal_schemas_makes_no_new_class() -> None:
    assert reader() is reader()


def test_a_feature_without_a_known_type_has_no_reader() -> None:
    assert row_reader(["other"], TYPES) is None
    assert row_reader(["x"], {"x": "date"}) is None


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("int64", ["1", "-9223372036854775808", "null"], ['"1"', "true", "1.0", str(1 << 63)]),
        ("string", ['"A-1"', "null"], ["1", '""', '"' + "x" * 1025 + '"']),
    ],
)
def test_an_entity_is_of_its_key_s_type(kind: str, right: list[str], wrong: list[str]) -> None:
    decode = request_decoder(kind).decode
    for text in right:
        assert decode(f'{{"entity": {text}}}').entity == json.loads(text)
    for text in wrong:
        with pytest.raises(msgspec.ValidationError):
            decode(f'{{"entity": {text}}}')
    with pytest.raises(msgspec.ValidationError):
        decode('{"more": 1}')


def test_stored_values_are_written_under_their_names() -> None:
    write = row_writer(("class", "f1", "a b"))
    assert msgspec.json.encode(write(1, float("nan"), None)) == b'{"class":1,"f1":null,"a b":null}'
