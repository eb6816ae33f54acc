"""Stopwatches measure what waited, not how busy the machine was meanwhile."""

import threading
import time

_NAP = 0.01  # seconds that the thread beside sleeps at a time


class _Sleeper(threading.Thread):
    """A thread that only sleeps counts by how many seconds it is woken too late.

    Anything else that waits on this machine is held up by as much: other processes hold its
    processors. What a test measures is therefore compared with a control from the same seconds.
    """

    def __init__(self) -> None:
        super().__init__(name="sleeper", daemon=True)
        self._late = 0.0
        self._due = time.monotonic()

    def run(self) -> None:
        """Sleep, and count, for as long as the process runs."""
        while True:
            self._due = time.monotonic() + _NAP
            time.sleep(_NAP)
            self._late += max(0.0, time.monotonic() - self._due)

    @property
    def late(self) -> float:
        """Seconds of delay since the start, with that of the nap that is under way."""
        return self._late + max(0.0, time.monotonic() - self._due)


_lock = threading.Lock()
_sleeper: _Sleeper | None = None


def _late() -> float:
    """Return by how many seconds this process was held up since its first stopwatch."""
    global _sleeper
    with _lock:
        if _sleeper is None or not _sleeper.is_alive():  # a forked child has no threads
            _sleeper = _Sleeper()
            _sleeper.start()
    return _sleeper.late


class Stopwatch:
    """A stopwatch tells how long something took, less what a busy machine has added."""

    def __init__(self) -> None:
        self._late = _late()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start, without those in which the machine was late itself."""
        return time.monotonic() - self._began - (_late() - self._late)
