"""Free text and names are no categories: they hardly ever repeat."""

from __future__ import annotations

import pytest

from include.training.free_text import hardly_repeats


@pytest.mark.parametrize(
    ("filled", "distinct", "free"),
    [(100, 51, True), (100, 50, False), (20, 20, False), (21, 21, True), (0, 0, False)],
    ids=["more than half", "half", "few", "one more than few", "nothing"],
)
def test_texts_of_which_more_than_half_are_unlike_are_free(
    filled: int, distinct: int, free: bool
) -> None:
    assert hardly_repeats(filled, distinct) is free
