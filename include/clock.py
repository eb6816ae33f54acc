"""The edge where a clock may be read; stages get their time as an argument."""

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
    """Ask until there is an answer other than None or False, at most so long; None: there was none.

    It is asked at least once, and once more at the deadline, so that an answer which comes in the
    last pause is not missed. Pauses are `every` seconds, the last one shorter. What `answer` raises
    ends the wait.
    """
    deadline = time.monotonic() + seconds  # a clock that is set changes nothing
    while True:
        found = answer()
        if found is not None and found is not False:
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(every, left))
