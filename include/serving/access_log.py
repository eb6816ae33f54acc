"""The node's access log: a sample of the requests, one line of JSON each, bounded in size and rate.

Changes of state and failures of the node (5xx) are not sampled: each has its line, as far as the
rate allows. The sample goes by the request id, so that a retry with the same id is in it as well.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec
from starlette.types import Scope

from include.serving.http import MAX_ECHO

MAX_BYTES, KEPT_FILES = 8 * 1024 * 1024, 4  # of the file, and of those before it
LINES_A_SECOND = 200
_ALWAYS = frozenset({"rollback", "reload"})
_SCALE = 1 << 32  # a checksum's range
_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes the lines; belongs to the event loop."""

    def __init__(
        self,
        path: Path,
        share: float,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Build it; `share` of the requests get a line. `failed` is told of each that is lost."""
        self.failed: Callable[[], object] = lambda: None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = _Handler(path, self._lost)
        self._limit, self._clock = round(share * _SCALE), clock
        self._second, self._left, self._dropped = 0, LINES_A_SECOND, 0

    def takes(self, request_id: str, route: str, status: int) -> bool:
        """Tell whether a request is one of those that get a line."""
        return zlib.crc32(request_id.encode()) < self._limit or status >= 500 or route in _ALWAYS

    def note(
        self, scope: Scope, request_id: str, use_case: str, route: str, status: int, seconds: float
    ) -> None:
        """Write a line of a request that was answered, if it is one of those that get one.

        `use_case` and `route` are what it is counted under, `seconds` is how long it took.
        """
        if not self.takes(request_id, route, status):
            return
        now = self._clock()
        if int(now) != self._second:
            self._second, self._left = int(now), LINES_A_SECOND
        if self._left <= 0:
            self._dropped += 1
            return
        self._left -= 1
        client = scope.get("client")
        line = {
            "at": datetime.fromtimestamp(now, tz=UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "client": client[0] if client else None,
            "caller": scope.get("caller") or None,
            "method": scope["method"][:16],
            "path": scope["path"][:MAX_ECHO],
            "use_case": use_case,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 3),
        }
        if self._dropped:
            line["dropped_before"], self._dropped = self._dropped, 0
        self._handler.handle(logging.makeLogRecord({"msg": _encode(line).decode()}))

    def _lost(self) -> None:
        self.failed()

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Handler(RotatingFileHandler):
    """The file; what it cannot write is counted, not shown as a trace a request."""

    def __init__(self, path: Path, failed: Callable[[], object]) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, delay=True)
        self._failed = failed

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a line that is lost: a full disk must not end an answer, nor fill another log."""
        self._failed()
