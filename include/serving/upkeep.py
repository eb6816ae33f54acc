"""What a node looks at now and then: its own code on the disk, and how large its home folder is."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from include.serving.app import App
from include.serving.code_stamp import CodeStamp
from include.serving.workers import Workers

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
MAX_PARTS = 50  # of a home folder, each a series


class Upkeep:
    """Looks in a thread, and shows what it finds in the node's metrics and its health.

    `sizes` is the file that the supervisor writes; without one, no sizes are shown.
    """

    def __init__(self, app: App, workers: Workers, stamp: CodeStamp, sizes: Path) -> None:
        self._app, self._workers, self._stamp, self._sizes = app, workers, stamp, sizes

    async def turn(self) -> None:
        """Look, then wait until the next look is due."""
        reason, sizes = await self._workers.run("upkeep", self._look)
        if reason and reason != self._app.table.restart:
            log.warning("%s", reason)
        self._app.table.restart = reason
        self._app.metrics.show_upkeep(code_changed=bool(reason), sizes=sizes)
        await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> tuple[str, dict[str, int]]:
        return self._stamp.restart_reason(), read_sizes(self._sizes)


def read_sizes(path: Path) -> dict[str, int]:
    """Return the bytes of the parts of a home folder as its supervisor wrote them, or none."""
    try:
        found = json.loads(path.read_bytes())
        parts = sorted(found.items(), key=lambda part: -int(part[1]))[:MAX_PARTS]
        return {str(name): int(size) for name, size in parts}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
