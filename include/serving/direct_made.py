"""Answers of the short way that are made and not yet on record, and what is noted of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from include.serving.answer_log import Asked
from include.serving.direct_plan import Plan
from include.serving.evidence import Evidence, Note
from include.serving.mirrored import Mirrored
from include.serving.predict import Features, PredictionAnswer
from include.serving.prometheus import Metrics
from include.serving.shadow import Shadow


class Taken(msgspec.Struct, gc=False):
    """A request that the short way has taken.

    `assigned` is the arm that it is meant for, `failed` why that one did not answer, `lacks` the
    feature that the challenger missed.
    """

    plan: Plan
    asked: Asked
    request: Any  # as the plan's decoder reads it
    defaults: Sequence[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    caller: str
    assigned: str = "champion"
    failed: str = ""
    lacks: str = ""


class Made(msgspec.Struct, gc=False):
    """An answer that is made and not yet on record; `content` is all of it as it is sent."""

    plan: Plan
    asked: Asked
    taken: Taken
    arm: str
    score: float
    features: Features
    line: bytes
    reply: PredictionAnswer
    content: bytes


class Waiting:
    """What stands for an answer that another process is asked for."""


WAITING = Waiting()
Late = Callable[[Made | None], object]  # told the answer; None: take the long way


class Notes:
    """Notes what a release is judged by, and has mirrored what a model was asked."""

    def __init__(self, evidence: Evidence, shadow: Shadow, metrics: Metrics) -> None:
        self._evidence, self._shadow, self._metrics = evidence, shadow, metrics

    def note(self, plan: Plan, made: Sequence[Made]) -> None:
        """Note answers of a plan, and mirror those of each model to its own requests.

        No question of a mirror leaves in this turn of the event loop: first the answers do.
        """
        served, notes = plan.served, list[Note]()
        if served.release is None:
            return
        threshold, count = served.use_case.decision.threshold, self._metrics.count_arm
        mirrored, champions = [], 0
        # Asked here too, before anything is made of the many that nobody mirrors.
        limit, sample = self._shadow.limit(served), served.release.sample
        known = sample.known
        for one in made:
            taken, features, score = one.taken, one.features, one.score
            entity, micros = taken.request.entity, features.model_us
            failed, lacks = taken.failed or None, taken.lacks or None
            notes.append((
                served, one.asked, taken.assigned, one.arm, entity,
                score, micros, score >= threshold, failed, lacks, None, False,
            ))  # fmt: skip
            if taken.assigned == "champion":
                champions += 1
            else:
                count(plan.use_case, "challenger", one.arm)
            if taken.assigned != one.arm:
                continue
            place = known.get(entity)
            if place is None and entity is not None:
                place = sample.place(entity)
            if place is None or place < limit:
                row = features.content
                sent = None if taken.request.features is UNSET else row
                mirrored.append(Mirrored(served, one.asked, entity, row, sent, score, one.arm))
        self._evidence.note_all(notes)
        if champions:
            count(plan.use_case, "champion", "champion", champions)
        if mirrored:
            self._shadow.mirror(served, mirrored)


def top_of(defaults: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head of an answer, up to the number of its body's bytes."""
    lines = [
        *defaults,
        (b"content-type", b"application/json"),
        (b"x-content-type-options", b"nosniff"),
    ]
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"HTTP/1.1 200 OK\r\n" + head + b"content-length: "
