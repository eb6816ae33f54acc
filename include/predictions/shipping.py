"""Ship the closed segments of this machine's nodes; run by the node in a process of its own.

`python -m include.predictions.shipping` ships what is there once, and ends.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from include.config.settings import settings
from include.predictions.log import closed_segments
from include.predictions.shared import SharedPlace

log = logging.getLogger(__name__)


def ship(home: Path, uri: str) -> int:
    """Ship all closed segments under a home folder, of which there may be none; return how many.

    One is removed here once it is whole over there. Killed in between it is shipped again.

    Raises:
        OSError: the place cannot be written; what is left stays for the next time.
    """
    place, shipped = SharedPlace(uri), 0
    place.begin()
    for folder in sorted((home / "predictions").glob("*/")):
        for segment in closed_segments(home, folder.name):
            place.write(folder.name, segment.path.name, segment.read())
            segment.remove()
            shipped += 1
    return shipped


def main() -> int:
    """Ship once; return the exit code."""
    here = settings()
    try:
        shipped = ship(here.home, here.segments_root)
    except OSError as error:
        sys.stderr.write(f"segments cannot be shipped: {error}\n")
        return 1
    log.info("%d segments shipped", shipped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
