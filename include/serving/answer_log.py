"""What the node puts on record: a line an answer, a line a failure, and nothing on a full disk.

All of it belongs to the event loop, but for the looks at the disk. What a line holds and how it is
put together is `include.predictions`' own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from include.deployment.description import Description
from include.errors import Unavailable
from include.predictions.line import FALLBACK
from include.predictions.line_writer import LineWriter, Source
from include.predictions.log import PredictionLog, name_of
from include.predictions.on_disk import OnDisk, free_bytes, look
from include.serving.http import Refusal, reason_of
from include.serving.predict import Features
from include.serving.prediction_request import CheckedRequest
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.shipper import Shipper
from include.serving.snapshot import Loaded, Served
from include.serving.workers import Workers

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # between two looks at what waits for the import
WARNED_AT = 2  # times the floor: from there on the node warns
_encode = msgspec.json.Encoder().encode
UNLOGGED = "unlogged"  # flag of an answer that is on no record
NameOf = Callable[[], Callable[[str], str]]


class Asked:
    """A request as the log names it: the node's id, the caller's, and when it came.

    `at` is in microseconds since 1970, `clock` in seconds of `time.perf_counter`; `batch` says that
    it is a row of a batch.
    """

    __slots__ = ("at", "batch", "caller_id", "clock", "own_id")

    def __init__(self, own_id: str, caller_id: str | None, *, batch: bool = False) -> None:
        self.own_id, self.caller_id, self.batch = own_id, caller_id, batch
        self.at, self.clock = time.time_ns() // 1000, time.perf_counter()

    @property
    def name(self) -> str:
        """The id that the answer names: the caller's, if there is one."""
        return self.caller_id or self.own_id

    @property
    def latency_us(self) -> int:
        """The microseconds since it came."""
        return int((time.perf_counter() - self.clock) * 1e6)


@dataclass(slots=True)
class _Book:
    """A use case's open log; the templates are those of one snapshot."""

    served: Served
    use_case: Description
    writer: LineWriter
    templates: dict[tuple[int | None, str | None, str, bool], bytes] = field(default_factory=dict)
    counted_lines: int = 0
    counted_bytes: int = 0


class AnswerLog:
    """The prediction logs of a node, one a use case."""

    def __init__(
        self,
        home: Path,
        table: ServingTable,
        metrics: Metrics,
        *,
        hasher: NameOf,
        ships: bool = False,
    ) -> None:
        """Build it.

        `hasher` returns the function that names entities, once one is needed; `ships` says that
        closed segments go to the place of EVERGREEN_SEGMENTS_URI.
        """
        self._home, self._table, self._metrics, self._hasher = home, table, metrics, hasher
        self._books: dict[str, _Book] = {}
        self._full: frozenset[str] = frozenset()
        self._warned: set[str] = set()
        self._next_look = 0.0
        self._shipper = Shipper(home) if ships else None

    def is_full(self, use_case: str) -> bool:
        """Tell whether the disk has less room than the use case's floor."""
        return use_case in self._full

    def admit(self, served: Served) -> None:
        """Refuse a request whose answer could not be logged.

        Raises:
            Refusal: 503, the disk has less room than the floor, and the use case says stop.
        """
        if not self._full or served.use_case.name not in self._full:
            return
        if served.use_case.log.when_full == "stop":
            raise Refusal(
                503,
                "log_full",
                "the node's disk has no room for what is answered; nothing is answered that is "
                "not on record",
                headers=[(b"retry-after", b"30")],
            )

    def source(
        self,
        served: Served,
        model: Loaded | None,
        arm: str | None,
        assigned: str = "champion",
        *,
        batch: bool = False,
    ) -> tuple[LineWriter, bytes]:
        """Return what puts the lines of a model in an arm together, and what they begin with.

        `assigned` is the arm that a request is meant for; `batch`: it is a row of a batch.
        """
        book = self._book(served)
        key = (model.version if model else None, arm, assigned, batch)
        template, release = book.templates.get(key), served.release
        if template is None:
            template = book.templates[key] = book.writer.template(
                Source(
                    version=model.version if model else None,
                    digest=model.digest if model else None,
                    feature_set=model.feature_set if model else None,
                    arm=arm,
                    assigned=assigned,
                    generation=served.generation,
                    threshold=served.use_case.decision.threshold,
                    release=release.id if release else None,
                    step=release.step if release else None,
                    batch=batch,
                )
            )
        return book.writer, template

    def answer_line(
        self,
        served: Served,
        model: Loaded,
        arm: str,
        asked: Asked,
        request: CheckedRequest,
        features: Features,
        score: float,
        decision: str,
    ) -> bytes:
        """Return the line of an answer."""
        source = self.source(served, model, arm, request.assigned, batch=asked.batch)
        return self.line(source, asked, request.entity, features, score, decision)

    def line(
        self,
        source: tuple[LineWriter, bytes],
        asked: Asked,
        entity: int | str | None,
        features: Features,
        score: float,
        decision: str,
    ) -> bytes:
        """Return the line of an answer of what `source` returned."""
        writer, template = source
        return writer.line(
            template,
            request_id=asked.own_id,
            caller_id=asked.caller_id,
            at=asked.at,
            entity=entity,
            features=features.content or _encode(features.row),
            latency_us=asked.latency_us,
            score=score,
            decision=decision,
            flags=features.flags,
            features_at=features.event_ts,
            model_us=features.model_us,
            reason=features.reason,
        )

    def failure_line(
        self, served: Served, error: Exception, asked: Asked, request: CheckedRequest
    ) -> bytes | None:
        """Return the line of a request that no model answered; None: that is the caller's fault."""
        reason = reason_of(error)
        if reason is None:
            return None
        if request.failed:
            reason = request.failed.encode("ascii")  # of the arm that it was meant for, as counted
        writer, template = self.source(
            served,
            served.champion,
            FALLBACK if request.neither else None,
            request.assigned,
            batch=asked.batch,
        )
        return writer.line(
            template,
            request_id=asked.own_id,
            caller_id=asked.caller_id,
            at=asked.at,
            entity=request.entity,
            features=None if request.row is None else _encode(request.row),
            latency_us=asked.latency_us,
            outcome=b"failed",
            reason=reason,
        )

    def put(self, served: Served, *lines: bytes) -> bool:
        """Put lines on record, by one write; tell whether they are.

        On a full disk they are not where the use case says flag.

        Raises:
            Unavailable: they could not be written, so nothing may be answered.
        """
        name, can_go_on = served.use_case.name, served.use_case.log.when_full == "flag"
        if not lines:
            return True
        # Who stops has refused before: what was admitted since then still finds room.
        if not (can_go_on and name in self._full):
            try:
                self._book(served).writer.write(*lines)
            except Unavailable:
                if not can_go_on:
                    raise
            else:
                return True
        self._metrics.count_event(name, UNLOGGED, len(lines))
        return False

    def put_failures(self, served: Served, *lines: bytes | None) -> None:
        """Put lines of failures on record, where that can be: no answer waits for them."""
        given = [line for line in lines if line is not None]
        try:
            self.put(served, *given)
        except Unavailable:
            self._metrics.count_event(served.use_case.name, UNLOGGED, len(given))

    def position(self, use_case: str) -> tuple[str, int]:
        """Return up to where a use case's log is written, as `PredictionLog.position` does."""
        book = self._books.get(use_case)
        return (name_of(time.time_ns()), 0) if book is None else book.writer.log.position

    def forget(self, use_case: str) -> None:
        """Close the log of a use case that was reset; its next answer opens another."""
        book = self._books.pop(use_case, None)
        if book is not None:
            book.writer.log.close(durable=False)  # nobody waits for the disk on the event loop
        self._metrics.hide_log(use_case)

    def close(self) -> None:
        """Close all logs, on the disk itself."""
        for book in self._books.values():
            book.writer.log.close()
        if self._shipper is not None:
            self._shipper.ship_last()

    def _book(self, served: Served) -> _Book:
        """Return the open log of a use case, by what its description says now."""
        name = served.use_case.name
        book = self._books.get(name)
        if book is not None and book.served is served:
            return book
        if book is not None and book.use_case == served.use_case:
            book.served = served
            book.templates.clear()
            return book
        lines = PredictionLog(self._home, name) if book is None else book.writer.log
        rules = served.use_case.log
        writer = LineWriter(
            lines, pii=rules.pii, name_of=self._hasher() if rules.hashes_entity else None
        )
        new = self._books[name] = _Book(served, served.use_case, writer)
        if book is not None:
            new.counted_lines, new.counted_bytes = book.counted_lines, book.counted_bytes
        return new

    # what is done every second, beside requests

    async def keep(self, workers: Workers) -> None:
        """Close old segments, sync the others, and look how much room the disk has."""
        for book in list(self._books.values()):
            try:
                book.writer.log.rotate()
                await workers.run("log", book.writer.log.sync)
            except OSError as error:
                log.warning("a prediction log segment could not be closed: %s", error)
        for name, book in self._books.items():
            lines = book.writer.log
            self._metrics.count_lines(
                name,
                lines.written_lines - book.counted_lines,
                lines.written_bytes - book.counted_bytes,
            )
            book.counted_lines, book.counted_bytes = lines.written_lines, lines.written_bytes
        if self._shipper is not None:
            # In a thread: to start a process takes milliseconds.
            went_well = await workers.run("log", self._shipper.turn, time.monotonic())
            if not went_well:
                self._metrics.count_event("", "segments_not_shipped")
        self.show_room(await workers.run("log", free_bytes, self._home))
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            for name in list(self._table.served):
                seen: OnDisk = await workers.run("log", self._look, name)
                if name in self._table.served:  # it may have been reset meanwhile
                    self._metrics.show_log(name, seen)

    def _look(self, name: str) -> OnDisk:
        return look(self._home, name, now=time.time_ns())

    def show_room(self, free: int) -> None:
        """Take over how many bytes are free: who has no room, and who is near it."""
        problems: dict[str, str] = {}
        full = set[str]()
        for name, served in self._table.served.items():
            floor = served.use_case.log.floor
            if free < floor:
                full.add(name)
                then = (
                    "requests are refused"
                    if served.use_case.log.when_full == "stop"
                    else "answers are not logged"
                )
                problems[name] = f"log: {_size(free)} free, below {_size(floor)}: {then}"
            elif free < WARNED_AT * floor:
                problems[name] = f"log: only {_size(free)} free; the floor is {_size(floor)}"
        for name in problems.keys() - self._warned:
            log.warning("%s: %s", name, problems[name])
        for name in self._full - full:
            log.info("%s: there is room for the log again", name)
        self._warned = set(problems)
        self._full = frozenset(full)
        self._table.disk = problems
        self._metrics.show_room(free, {name: name in full for name in self._table.served})


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
