"""JSON lines, or one array of objects, become text columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.ingestion import json_columns
from include.ingestion.decompression import Refused
from include.ingestion.json_columns import convert_json_lines


def converted(folder: Path, text: str, *, whole: bool = False) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of a text and its rows as lists: values, row, malformed line."""
    path, out = folder / "in.jsonl", folder / "out.arrow"
    path.write_text(text)
    columns, count = convert_json_lines(path, out, str(folder), whole=whole)
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert len(rows) == count
    return columns, [list(row.values()) for row in rows.to_pylist()]


def test_names_come_in_the_order_in_which_they_first_appear(tmp_path: Path) -> None:
    """As the columns of a CSV do: of them the last may be taken for the outcome."""
    assert converted(tmp_path, '{"b": 1, "a": "x"}\n\n{"a": "y", "d": 2, "c": true}\n') == (
        ["b", "a", "d", "c"],
        [["1", "x", None, None, 1, None], [None, "y", "2", "true", 2, None]],
    )


def test_numbers_keep_their_digits_also_in_an_array(tmp_path: Path) -> None:
    long = "12345678901234567890"
    assert converted(tmp_path, f'{{"n": {long}}}\n')[1] == [[long, 1, None]]
    assert converted(tmp_path, f' [{{"n": {long}}},\n {{"n": 2}}]')[1] == [
        [long, 1, None],
        ["2", 2, None],
    ]


def test_names_with_signs_of_pointers_and_quotes_are_names(tmp_path: Path) -> None:
    columns, rows = converted(tmp_path, '{"a/b": 1, "c~d": 2, "it\'s": 3}\n')
    assert dict(zip(columns, rows[0], strict=False)) == {"a/b": "1", "c~d": "2", "it's": "3"}


def test_a_line_that_is_no_object_of_names_is_set_aside(tmp_path: Path) -> None:
    text = '{"a": 1}\n{"a": 1, "a": 2}\n[1]\n{"a"\n'
    rows = converted(tmp_path, text)[1]
    assert [row[2] for row in rows] == [None, '{"a": 1, "a": 2}', "[1]", '{"a"']
    assert [row[0] for row in rows] == ["1", None, None, None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1\n2\n", r"no line that is a JSON object with names; the first is '1'"),
        ('[{"a": 1}', "begins as one JSON array and is none to its end"),
        ('{"a": 1, "A": 2}\n', "has the column"),
    ],
)
def test_what_has_no_columns_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        converted(tmp_path, text)


def test_an_array_of_any_size_would_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_columns, "MAX_ARRAY", 5)
    with pytest.raises(Refused, match="one JSON array of more than"):
        converted(tmp_path, '[{"a": 1}]')


@pytest.mark.parametrize("text", ['{{"a": 1}}\n{long}\n', '[{{"a": 1}}, {long}]'])
def test_a_line_that_is_too_long_is_refused_by_its_number(tmp_path: Path, text: str) -> None:
    long = '{"a": "' + "x" * (5 << 20) + '"}'
    with pytest.raises(Refused, match="line 2 is longer than 4 MB"):
        converted(tmp_path, text.format(long=long))


@pytest.mark.parametrize(
    "text",
    [
        '{"rows": [{"n": 12345678901234567890, "t": "a\\nb"}, {"n": 2.50}]}',
        '{\n "count": 2,\n "errors": [],\n "rows": [\n {"n": 12345678901234567890,\r\n "t": '
        '"a\\nb"}, {"n": 2.50}\n]}\n',
        '{"n": 12345678901234567890, "t": "a\\nb"}\n\n{"n": 2.50}',
    ],
    ids=["one line", "indented", "in truth JSON lines"],
)
def test_an_object_may_hold_the_array(tmp_path: Path, text: str) -> None:
    columns, rows = converted(tmp_path, text, whole=True)
    assert columns == ["n", "t"]
    assert rows == [["12345678901234567890", "a\nb", 1, None], ["2.5", None, 2, None]]
    assert not (tmp_path / "unfolded").exists()


def test_an_object_of_plain_values_is_a_row_and_no_rows_are_none(tmp_path: Path) -> None:
    assert converted(tmp_path, '{\n"a": 1}', whole=True) == (["a"], [["1", 1, None]])
    assert converted(tmp_path, '{"rows": []}', whole=True) == ([], [])
    order = '{"order_id": 7, "items": [{"n": 1}]}'
    path, out = tmp_path / "in.json", tmp_path / "out.arrow"
    path.write_text(order)
    for declared, columns in (["order_id"], ["order_id", "items"]), (["n"], ["n"]):
        found = convert_json_lines(path, out, str(tmp_path), whole=True, declared=declared)
        assert found == (columns, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": [{"x": 1}], "b": [{"y": 1}]}', r"2 arrays of objects \(a, b\)"),
        ('{"a": [1, 2], "b": {"0": 1}}', r"one JSON object \(a, b\) without an array of objects"),
        ('{"a": [{"x": 1}', "begins as one JSON object and is none to its end"),
        ('[{"x": NaN}]', "none to its end .*NaN and Infinity are no JSON"),
    ],
)
def test_an_object_that_is_no_table_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        converted(tmp_path, text, whole=True)
