"""JSON lines, or one array of objects, become text columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.ingestion import json_columns
from include.ingestion.decompression import Refused
from include.ingestion.json_columns import convert_json_lines


def converted(folder: Path, text: str) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of a text and its rows as lists: values, row, malformed line."""
    path, out = folder / "in.jsonl", folder / "out.arrow"
    path.write_text(text)
    columns, count = convert_json_lines(path, out, str(folder))
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert len(rows) == count
    return columns, [list(row.values()) for row in rows.to_pylist()]


def test_names_come_in_the_order_of_their_first_line(tmp_path: Path) -> None:
    assert converted(tmp_path, '{"b": 1, "a": "x"}\n\n{"c": true}\n') == (
        ["a", "b", "c"],
        [["x", "1", None, 1, None], [None, None, "true", 2, None]],
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
