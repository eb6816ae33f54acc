"""How long work waits for what others do, and what ends the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from include import clock

POLL = 0.5  # seconds between two looks at what is waited for
T = TypeVar("T")


class Waiting(Protocol):
    """Who waits, as the supervisor does: it ends the wait where something has died."""

    def pause(self, seconds: float) -> None:
        """Sleep, or raise what ends the work."""

    def wait_for(self, answer: Callable[[], T | None], *, seconds: float) -> T | None:
        """Ask until there is an answer; None after so many seconds."""


class Unattended:
    """Waits where somebody else, such as a container engine, keeps everything up."""

    def pause(self, seconds: float) -> None:
        """Sleep; Ctrl-C ends it."""
        time.sleep(seconds)

    def wait_for(self, answer: Callable[[], T | None], *, seconds: float) -> T | None:
        """Ask until there is an answer; None after so many seconds."""
        return clock.wait_for(answer, seconds=seconds, every=POLL)
