"""Read the clock, here alone: stages get their time as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


def wait_for(answer: Callable[[], T | None], *, seconds: float, every: float) -> T | None:
    """Ask until there is an answer other than None or False; return it, or None at the deadline.

    It is asked at least once, and once more at the deadline, so that an answer which comes in the
    last pause is not missed. Pauses are `every` seconds, the last one shorter. What `answer` raises
    ends the wait.
    """
    deadline = time.monotonic() + seconds  # a clock that is set changes nothing
    while True:
        value = answer()
        if value is not None and value is not False:
            return value
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(every, left))
