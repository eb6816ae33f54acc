"""The answers of one turn of the event loop, put on record together.

With many connections a turn reads many requests. One write of all their lines takes a fraction of
one a line, and no answer leaves before its own line is written. An answer waits for its turn to
end, and for `MAX_TOGETHER` others at most.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from include.serving.direct import Direct, Made
from include.serving.prometheus import Metrics

log = logging.getLogger(__name__)

MAX_TOGETHER = 16


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

    def add(self, made: Made, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Send an answer to a connection when this turn ends."""
        if not self._waiting:
            # The loop calls it before it waits for anything again.
            loop.call_soon(self.settle)
        self._waiting.append((made, connection))
        if len(self._waiting) >= MAX_TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Put on record what waits, and send it."""
        while self._waiting:
            plan = self._waiting[0][0].plan
            # Nearly always of one plan; what is of another one follows.
            together = [one for one in self._waiting if one[0].plan is plan]
            self._waiting = (
                []
                if len(together) == len(self._waiting)
                else [one for one in self._waiting if one[0].plan is not plan]
            )
            answers = self._direct.settle([made for made, _ in together])
            for number, (_, connection) in enumerate(together):
                try:
                    connection.take_answer(None if answers is None else answers[number])
                # The answers of the others are not its fault.
                except Exception as error:
                    self._metrics.count_event(plan.use_case, "direct_failed")
                    log.error("an answer could not be sent: %s", error, exc_info=error)
                    connection.give_up_answer()
