"""Ship the closed segments of this machine's nodes; run by the node in a process of its own.

`python -m include.predictions.shipping` ships what is there once, and ends.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from include.config.settings import Settings, settings
from include.errors import EvergreenError
from include.object_stores import explain, shown
from include.predictions.log import Segment, closed_segments
from include.predictions.resets import drop_forgotten
from include.predictions.shared import SETTING, SharedPlace

log = logging.getLogger(__name__)


TOLD = 3  # segments of a use case that are named; the rest is counted


@dataclass(frozen=True, slots=True)
class Shipped:
    """How many segments are over there now, and how many could not be brought there."""

    done: int
    left: int


def ship(
    home: Path, uri: str, *, reset_of: Callable[[str], datetime | None] = lambda use_case: None
) -> Shipped:
    """Ship all closed segments under a home folder, of which there may be none.

    One is removed here once it is whole over there. Killed in between it is shipped again. Those of
    before the newest reset of their use case, which `reset_of` tells, are removed and not shipped.
    What cannot be read here, or written there, is logged, stays for the next time, and keeps no
    other back.

    Raises:
        OSError: the place cannot be written at all.
        SourceError: it refuses its address or the credentials.
    """
    place = SharedPlace(uri)
    place.begin()
    queues = [
        _Queue(place, folder.name, drop_forgotten(folder.name, segments, reset_of(folder.name)))
        for folder in sorted((home / "predictions").glob("*/"))
        if (segments := closed_segments(home, folder.name))
    ]
    # All that can be written first: where a store takes its time to refuse one use case, others do
    # not stand behind all of its segments.
    for queue in queues:
        queue.ship(until_refused=True)
    for queue in queues:
        queue.ship()
    return Shipped(sum(queue.done for queue in queues), sum(queue.end() for queue in queues))


class _Queue:
    """The segments of a use case on their way, and what came of them."""

    def __init__(self, place: SharedPlace, use_case: str, segments: Iterable[Segment]) -> None:
        self._place, self._use_case = place, use_case
        self._waiting = deque(segments)
        self._left = self.done = 0

    def ship(self, *, until_refused: bool = False) -> None:
        """Ship those that wait, or until the place refuses one."""
        while self._waiting:
            segment = self._waiting.popleft()
            try:
                content = segment.read()
            except OSError as error:
                self._leave(
                    segment,
                    error,
                    f"cannot be read: let user {os.getuid()} read it, or move it out of its folder",
                )
                continue
            try:
                self._place.write(self._use_case, segment.path.name, content)
            except OSError as error:
                there = f"{self._place.shown}/{self._use_case}"
                self._leave(
                    segment, error, f"cannot be written to {there}: mend its permissions or room"
                )
                if until_refused:
                    return
                continue
            try:
                segment.remove()
                self.done += 1
            except OSError as error:
                self._leave(
                    segment,
                    error,
                    f"is shipped and cannot be removed: let user {os.getuid()} write its folder",
                )

    def _leave(self, segment: Segment, error: OSError, what: str) -> None:
        self._left += 1
        if self._left <= TOLD:
            log.error("segment %s %s (%s)", segment.path, what, explain(error))

    def end(self) -> int:
        """Return how many are left, and log those that are not named."""
        if self._left > TOLD:
            log.error("%s: %d more segments are left", self._use_case, self._left - TOLD)
        return self._left


class Resets:
    """Tells from the records when a use case was reset last; None where they cannot be read.

    What is shipped then is looked at once more by the import. They are asked once: the node's end
    waits for this process.
    """

    def __init__(self, here: Settings) -> None:
        self._here, self._are_away = here, False

    def __call__(self, use_case: str) -> datetime | None:
        if self._are_away:
            return None
        # Imported here: mostly there is nothing to ship.
        from include.records.records import Records

        try:
            records = Records.open(self._here.records_address, patience=0.0)
            return records.newest_reset(use_case)
        except EvergreenError as error:
            log.warning("segments are shipped without a look at resets: %s", error)
            self._are_away = True
            return None


def main() -> int:
    """Ship once; return the exit code."""
    try:
        here = settings()
    except EvergreenError as error:
        sys.stderr.write(f"segments cannot be shipped: {error}\n")
        return 1
    try:
        shipped = ship(here.home, here.segments_root, reset_of=Resets(here))
    except (OSError, EvergreenError) as error:
        sys.stderr.write(
            f"segments cannot be shipped to {shown(here.segments_root)}: {explain(error)}; they "
            f"stay in {here.home / 'predictions'} and are tried again: mend the place, its "
            f"permissions and credentials, or {SETTING}\n"
        )
        return 1
    log.info("%d segments shipped", shipped.done)
    if shipped.left:
        sys.stderr.write(
            f"{shipped.left} segments cannot be shipped to {shown(here.segments_root)}, as told "
            f"above; they stay in {here.home / 'predictions'} and are tried again\n"
        )
    return 1 if shipped.left else 0


if __name__ == "__main__":
    sys.exit(main())
