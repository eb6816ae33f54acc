"""Rows that stand in an order are seen to, and blocks that a writer interchanged are found."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from include.lake.ordering import find_blocks, is_ordered

NAN = float("nan")


def chunked(*values: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values))])


@pytest.mark.parametrize(
    ("columns", "ordered", "strictly"),
    [
        ([[1, 2, 3]], True, True),
        ([[1, 2, 2]], True, False),
        ([[1, 3, 2]], False, False),
        ([[1, 1, 2], ["b", "c", "a"]], True, True),
        ([[1, 1, 2], ["c", "b", "a"]], False, False),
        ([[1, 1, 1], ["a", "a", "b"], [2, 1, 3]], False, False),
        ([[1, 1], ["a", "a"], [1, 1]], True, False),
        ([[1, 2], [None, None]], True, True),
        ([[1, 1], [None, 1]], False, False),
        ([[0.5, NAN]], False, False),
        ([[NAN, 0.5]], False, False),
        ([[1]], True, True),
    ],
)
def test_an_order_is_seen_as_sorting_would_leave_it(
    columns: list[list[Any]], ordered: bool, strictly: bool
) -> None:
    given = [chunked(*column) for column in columns]
    assert is_ordered(given) is ordered
    assert is_ordered(given, strictly=True) is strictly


def test_coded_texts_are_ordered_by_what_they_say() -> None:
    codes = pa.array([0, 1, 1], pa.int32())
    assert is_ordered([pa.chunked_array([pa.DictionaryArray.from_arrays(codes, ["a", "b"])])])
    assert not is_ordered([pa.chunked_array([pa.DictionaryArray.from_arrays(codes, ["b", "a"])])])


def test_no_row_is_in_order() -> None:
    assert is_ordered([pa.chunked_array([], pa.int64())], strictly=True)


def test_several_chunks_are_one_column() -> None:
    assert is_ordered([pa.chunked_array([[1, 2], [2, 3]])])
    assert not is_ordered([pa.chunked_array([[1, 2], [1, 3]])])


def test_blocks_come_in_the_order_of_their_names_and_first_numbers() -> None:
    files = pa.array(["b", "b", "b", "a", "a", "b", "b"]).dictionary_encode()
    numbers = pa.array([4, 5, 6, 1, 2, 1, 2])
    assert find_blocks([files], numbers) == [(3, 2), (5, 2), (0, 3)]


@pytest.mark.parametrize("numbers", [[1, 2, 3], [], [7], [1, 5, 9]])
def test_rows_in_order_have_no_blocks_to_put_back(numbers: list[int]) -> None:
    files = pa.array(["a"] * len(numbers), pa.string()).dictionary_encode()
    assert find_blocks([files], pa.array(numbers, pa.int64())) is None


def test_rows_without_any_blocks_are_left_as_they_are() -> None:
    numbers = pa.array([(7 * number) % 2003 for number in range(2003)])
    files = pa.array(["a"] * len(numbers)).dictionary_encode()
    assert find_blocks([files], numbers) is None
