"""Keep the node's endless loops going whatever one raises, and wait for what they bring about."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0  # seconds after a failure; doubled with each in a row


def pause_after(failures: int, *, first: float = FIRST_PAUSE, longest: float) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return float(min(longest, first * 2 ** min(failures - 1, 30)))


async def keep_going(
    name: str, turn: Callable[[], Awaitable[object]], failed: Callable[[str], object]
) -> None:
    """Take turns until cancelled; `turn` waits itself for what comes next.

    What it raises is counted (`failed` is told the loop's name), logged once a kind until a turn
    ends well again, and followed by a pause that grows: a loop that dies, or spins, would take the
    node with it.
    """
    failures, seen = 0, set[str]()
    while True:
        try:
            await turn()
        except Exception as error:
            failures += 1
            failed(name)
            kind = type(error).__name__
            if kind not in seen:
                seen.add(kind)
                log.error("%s: %s; it goes on", name, error, exc_info=error)
            await asyncio.sleep(pause_after(failures, longest=LONGEST_PAUSE))
        else:
            if failures:
                log.info("%s: it works again, after %d failures", name, failures)
            failures = 0
            seen.clear()


class News:
    """Wakes whoever waits for a condition, whenever something has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Say that something has changed."""
        self._event.set()

    async def until(self, settled: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition, at most so many seconds; tell whether it came."""
        try:
            async with asyncio.timeout(seconds):
                while not settled():
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            return False
        return True
