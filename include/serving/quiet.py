"""Bound what the node's log takes: of a kind of message some, then one a minute with the count.

Whoever reaches the node can cause lines (a wrong token, a bad request, a failing model); they are
always counted as metrics, and never fill the disk.
"""

from __future__ import annotations

import logging
import time

BURST = 5  # messages of a kind that are written at once
PAUSE_SECONDS = 60.0  # after which one more is, with the number of those that were left out
MAX_KINDS = 1000  # messages are constants of the code; libraries could make them up


class Quiet(logging.Filter):
    """Lets a few messages of each kind pass; a kind is a logger and a message without its values.

    It is hung on handlers: a filter of a logger does not see what other loggers hand up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[tuple[str, str], int] = {}
        self._until: dict[tuple[str, str], float] = {}
        self._dropped: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written; the first after a pause says how many were not.

        Every handler that it hangs on asks; all are told the same, and the record counts once.
        """
        told: bool | None = getattr(record, "passes_quiet", None)
        if told is None:
            told = record.passes_quiet = self._passes(record)
        return told

    def _passes(self, record: logging.LogRecord) -> bool:
        kind, now = (record.name, str(record.msg)[:200]), time.monotonic()
        if now >= self._until.get(kind, 0.0):
            if len(self._until) >= MAX_KINDS:
                for kept in (self._left, self._until, self._dropped):
                    kept.clear()
            dropped = self._dropped.pop(kind, 0)
            self._until[kind] = now + PAUSE_SECONDS
            self._left[kind] = 1 if dropped else BURST
            if dropped:
                record.msg = f"{record.msg} ({dropped} more like this were left out)"
        if self._left[kind] > 0:
            self._left[kind] -= 1
            return True
        self._dropped[kind] = self._dropped.get(kind, 0) + 1
        return False


def bound_log() -> None:
    """Hang the filter on all handlers of this process, uvicorn's lines included."""
    quiet = Quiet()
    handlers = logging.getLogger().handlers
    for handler in handlers or ([logging.lastResort] if logging.lastResort else []):
        handler.addFilter(quiet)
