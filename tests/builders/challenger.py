"""A challenger in a process of its own, as far as who asks it can tell; and its release."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from include.errors import Unavailable
from include.serving.assignment import WHOLE, Assignment
from include.serving.child_link import Done, Late, Reply
from include.serving.snapshot import RemoteScore, ServedRelease
from tests.builders.serving import ROW

KEY = b"k" * 16
RELEASE, STEP = "0123456789ab", 1
HANGS = 99.0  # an answer that never comes
Told = float | Exception
# Set in a node: deadlines of models in processes of their own that a busy machine keeps.
PATIENT = """
import os
os.environ["EVERGREEN_REQUEST_SECONDS"] = "60"
from include.serving import answering, direct, isolated_model, mirrored
answering.CHALLENGER_SECONDS = direct.CHALLENGER_SECONDS = isolated_model.DEADLINE = 30.0
answering._WITH_ITS_QUEUE = 60.0
mirrored.SECONDS = mirrored.CANARY_SECONDS = 30.0
"""


class Challenger:
    """Answers what its function says of a row: a number, or an error that is raised.

    `busy` has it refuse questions that nobody awaits; `seconds` is how long these take.
    """

    def __init__(self, answer: Callable[[Mapping[str, object]], Told]) -> None:
        self.features = [*ROW]
        self.alive, self.busy, self.seconds = True, False, 0.0
        self.on_end: Callable[[], None] = lambda: None
        self.asked: list[Mapping[str, object]] = []
        self._answer = answer

    async def ask(self, row: Mapping[str, object], *, seconds: float | None = None) -> RemoteScore:
        """Answer a question."""
        self.asked.append(row)
        answer = self._answer(row)
        if isinstance(answer, Exception):
            raise answer
        if answer == HANGS:
            await asyncio.sleep(60)
        return RemoteScore(answer, 17)

    def post(self, row: bytes, done: Done, seconds: float) -> bool:
        """Answer a question that nobody awaits."""
        if self.busy or not self.alive:
            return False
        given = json.loads(row)
        self.asked.append(given)
        lacks = next((name for name in self.features if name not in given), None)
        answer = self._answer(given)
        reply: Reply | Unavailable = Reply(id=1, micros=17)
        if lacks is not None:
            reply = Reply(id=1, feature=lacks, error="is missing")
        elif answer == HANGS:
            reply = Late("no answer in time")
        elif isinstance(answer, Exception):
            reply = answer if isinstance(answer, Unavailable) else Reply(id=1, error=str(answer))
        elif isinstance(answer, float):
            reply = Reply(id=1, micros=17, score=answer)
        asyncio.get_running_loop().call_later(self.seconds, done, reply)
        return True

    def close(self) -> None:
        """End."""
        self.alive = False


def served_release(share: int = WHOLE, **changes: Any) -> ServedRelease:
    """Return a release in a canary step of this share, in basis points."""
    return ServedRelease(
        **{
            "id": RELEASE,
            "step": STEP,
            "mode": "canary",
            "share": share,
            "key": KEY,
            "places": Assignment(KEY),
            **changes,
        }
    )
