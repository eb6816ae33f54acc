"""The answers of one turn of the event loop, put on record together.

With many connections a turn reads many requests. One write of all their lines takes a fraction of
one a line, and no answer leaves before its own line is written. An answer waits for its turn to
end, and for `MAX_TOGETHER` others at most.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from include.serving.direct import Direct
from include.serving.direct_made import Made
from include.serving.prometheus import Metrics

log = logging.getLogger(__name__)

MAX_TOGETHER = 16
LONELY = 8  # answers that are sent at once after a turn that had one alone


class Connection(Protocol):
    """A connection that waits for its answer, of which it has one in hand at most."""

    def take_answer(self, answer: bytes | None) -> None:
        """Send an answer; None: it is on no record, so its request is to take the long way."""

    def give_up_answer(self) -> None:
        """End without an answer."""


class Turn:
    """Collects answers that are made, until they are settled; belongs to the event loop."""

    def __init__(self, direct: Direct, metrics: Metrics) -> None:
        self._direct, self._metrics = direct, metrics
        self._waiting: list[tuple[Made, Connection]] = []
        self._added = 0  # in this turn
        self._lonely = 0  # answers that are still to be sent at once

    def add(self, made: Made, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Send an answer to a connection when this turn ends, or now."""
        self._waiting.append((made, connection))
        if self._lonely:  # to be called back takes longer than a write of one's own
            self._lonely -= 1
            self.settle()
            return
        if not self._added:
            # The loop calls it before it waits for anything again.
            loop.call_soon(self._end)
        self._added += 1
        if len(self._waiting) >= MAX_TOGETHER:
            self.settle()

    def _end(self) -> None:
        if self._added == 1:
            self._lonely = LONELY
        self._added = 0
        self.settle()

    def settle(self) -> None:
        """Put on record what waits, and send it."""
        waiting, self._waiting = self._waiting, []
        while waiting:
            plan = waiting[0][0].plan
            # Nearly always of one plan; what is of another one follows.
            together = [one for one in waiting if one[0].plan is plan]
            others = len(together) < len(waiting)
            waiting = [one for one in waiting if one[0].plan is not plan] if others else []
            self._send(plan.use_case, together)

    def _send(self, use_case: str, together: list[tuple[Made, Connection]]) -> None:
        try:
            answers = self._direct.settle([made for made, _ in together])
        except Exception as error:  # noqa: BLE001 - asked again, they would be on record twice
            self._failed(use_case, error, *[connection for _, connection in together])
            return
        for number, (_, connection) in enumerate(together):
            try:
                connection.take_answer(None if answers is None else answers[number])
            except Exception as error:  # noqa: BLE001 - the others' answers are not its fault
                self._failed(use_case, error, connection)

    def _failed(self, use_case: str, error: Exception, *connections: Connection) -> None:
        """End connections whose answers could not be sent, which must not happen."""
        self._metrics.count_event(use_case, "direct_failed", len(connections))
        log.error("an answer could not be sent: %s", error, exc_info=error)
        for connection in connections:
            connection.give_up_answer()
