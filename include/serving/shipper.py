"""Ship a node's closed segments by another process: an upload would hold its interpreter lock."""

from __future__ import annotations

import logging
import subprocess
import time
from pathlib import Path

from include.predictions.log import CLOSED
from include.processes import python_module

log = logging.getLogger(__name__)

SHIP_SECONDS = 60.0  # between two starts of the process that ships segments
SHIP_WITHIN = 600.0  # seconds after which such a process hangs, and is ended
LAST_SHIP_SECONDS = 8.0  # for so long a node that ends waits for such a process


class Shipper:
    """Starts the process that ships closed segments, one at a time; nobody waits for it."""

    def __init__(self, home: Path) -> None:
        self._closed = (home / "predictions", f"*/*{CLOSED}")
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -SHIP_SECONDS
        self._has_begun = False  # to ship: the import tells by it that this is the right place

    def turn(self, now: float) -> bool:
        """Look after the process at `now`, in seconds; tell whether the last one did well."""
        went_well = True
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if now - self._started > SHIP_WITHIN:
                    self._process.kill()
                return True
            self._process, went_well = None, code == 0
            self._has_begun |= went_well
        folder, closed = self._closed
        if now - self._started >= SHIP_SECONDS and (
            not self._has_begun or any(folder.glob(closed))
        ):
            self._start(now)
        return went_well

    def ship_last(self) -> None:
        """Ship what the end of the node has closed: its disk may go with it."""
        try:
            if self._process is not None:  # it may have looked before the last ones were closed
                self._process.wait(LAST_SHIP_SECONDS)
            self._start(time.monotonic()).wait(LAST_SHIP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("segments may be left in this node's folder; its next start ships them")
            if self._process is not None:
                self._process.kill()

    def _start(self, now: float) -> subprocess.Popen[bytes]:
        # It has the node's environment: with the settings, and what reaches the store.
        self._started = now
        self._process = subprocess.Popen(python_module("include.predictions.shipping"))
        return self._process
