"""An event loop whose time does not pass while there is work, and jumps over every wait.

What a deadline is for is then decided by who waits for what, on a machine of any speed.
"""

from __future__ import annotations

import asyncio
import selectors


class _Jumps(selectors.DefaultSelector):
    """Waits for no timer: it tells by how much the clock is to jump."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now, else let the time until the next timer pass at once."""
        if timeout is None:  # there is no timer: something from outside ends the wait
            return super().select(None)
        found = super().select(0)
        if not found:
            self.jumped += max(0.0, timeout)
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop for what waits in this very process: an answer from outside takes no time here."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        """Return the seconds that were jumped over."""
        return self._jumps.jumped
