"""A wait ends with the first answer, or at its deadline."""

from __future__ import annotations

import time

import pytest

from include.clock import utc_now, wait_for


def test_now_is_in_utc() -> None:
    assert utc_now().utcoffset().total_seconds() == 0  # type: ignore[union-attr]


def test_the_first_answer_ends_the_wait() -> None:
    answers = iter([None, False, 0, "late"])
    assert wait_for(lambda: next(answers), seconds=60, every=0.001) == 0


def test_it_is_asked_once_more_at_the_deadline() -> None:
    asked: list[float] = []
    began = time.monotonic()
    assert wait_for(lambda: asked.append(time.monotonic()), seconds=0.5, every=60) is None
    assert len(asked) == 2
    assert asked[-1] - began >= 0.5


def test_no_time_is_one_question() -> None:
    asked: list[int] = []
    assert wait_for(lambda: asked.append(1), seconds=0, every=60) is None
    assert asked == [1]


def test_an_error_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 // 0, seconds=60, every=60)
