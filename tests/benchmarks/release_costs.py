"""CPU microseconds that a release adds to a request: while one is under way, and while none is.

The node's own application is asked in this process, without sockets, so that little else is in the
figure; only the thread's CPU time is taken. Contenders take turns in slices of some milliseconds.
Others on the machine can only make a slice dearer (caches, the other half of a core), by more than
what is looked for. So a contender's cost is that of the cheapest tenth of its slices, and a figure
the difference of two such costs; its spread is that of the same over parts of the rounds.

- *as before*: `WithoutReleases`, the short way without what releases have brought.
- *none*: the short way as it is; no release is under way.
- *under way*: a canary step of 5 %, all of whose requests are the champion's. What is counted of
  them is folded behind the answers, as the node does; that is a figure of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from include.errors import EvergreenError
from include.records.records import Records
from include.serving import window_rows
from include.serving.answer_log import UNLOGGED, Asked
from include.serving.assignment import WHOLE, Assignment
from include.serving.direct import Direct, Headers
from include.serving.direct_made import Late, Made, Taken, Waiting
from include.serving.http import caller_id_of
from include.serving.predict import Features, decide, describe_answer
from include.serving.snapshot import Loaded, Online
from include.serving.typed_rows import names_features_once
from include.serving.window_file import WindowFile
from include.serving.window_rows import WindowRows
from tests.benchmarks.serving_desk import ENTITIES, WideDesk, json_of, named, rows
from tests.builders.application import Client
from tests.builders.challenger import KEY, Challenger, served_release
from tests.builders.serving import FEATURE_SET, NAME

LIMITS = {"under way": 2.0, "none": 0.3}  # us of CPU a request, by entity
SHARE = 500  # basis points
SLICE, TOGETHER = 256, 16  # requests; settled together as those of a turn are
CHEAPEST, PARTS = 0.1, 6
WAYS = ("entity", "row")


class WithoutReleases(Direct):
    """The short way as it would be if there were no releases: what is compared with.

    It repeats `Direct` line by line, without arms, what is noted of them and a challenger's wait;
    what else changes there must change here too, or it is not a comparison.
    """

    def make(
        self,
        use_case: str,
        headers: Headers,
        body: bytes,
        defaults: Sequence[tuple[bytes, bytes]],
        client: tuple[str, int] | None = None,
        late: Late | None = None,
    ) -> Made | Waiting | None:
        """Make an answer of the champion."""
        plan = self._plans.get(use_case)
        table = self._table
        if (
            plan is None
            or table.draining
            or not table.started
            or self._log.is_full(use_case)
            or not self._admits(headers)
        ):
            return None
        caller = self._caller_of(headers.get(b"authorization"))
        if caller is None:
            return None
        asked = Asked(self._own_id(), caller_id_of(headers.get(b"x-request-id")))
        served, model = plan.served, plan.model
        try:
            request = plan.decode(body)
            if not names_features_once(request, body):
                return None
            entity = None if request.entity is UNSET else request.entity
            if request.features is UNSET:
                if entity is None:
                    return None
                _, horizon = self._horizons[use_case].now()
                found = plan.stored(entity, horizon)
                if found is None:
                    return None
                values, features = found
            else:
                values, content = plan.reader.read(request.features)
                features = Features({}, None, None, [], content)
            began = time.perf_counter()
            score = plan.score(values)
            features.model_us = int((time.perf_counter() - began) * 1e6)
            if not 0.0 <= score <= 1.0:
                return None
            decision = decide(served.use_case, score)
            lines = plan.lines.get(_ARMS)
            if lines is None:
                lines = plan.lines[_ARMS] = self._log.source(served, model, *_ARMS)
            line = self._log.line(lines, asked, entity, features, score, decision)
            name = asked.name
            reply = describe_answer(
                name, entity, served, model, "champion", features, score, decision
            )
            written = self._written(name, reply, defaults)
            # One struct instead of two: `Taken` is what an answer needs that may wait.
            return Made(plan, asked, _NONE_TAKEN, "champion", score, features, line, reply, written)
        except (msgspec.MsgspecError, EvergreenError, ValueError, RecursionError):
            return None

    def settle(self, made: Sequence[Made]) -> list[bytes] | None:
        """Put answers on record."""
        plan = made[0].plan
        use_case = plan.use_case
        try:
            is_logged = self._log.put(plan.served, *[one.line for one in made])
        except EvergreenError:
            return None
        if not is_logged:
            for one in made:
                one.reply.flags.append(UNLOGGED)
        now, observe, access_log = time.perf_counter(), self._observe, self._access_log
        self._metrics.count_answer(use_case, "predict", 200, len(made))
        for one in made:
            asked = one.asked
            taken = now - asked.clock
            observe(use_case, taken)
            if access_log is not None:
                access_log.takes(asked.name, "predict", 200)
        return [one.content for one in made]


_ARMS = ("champion", "champion")
_NONE_TAKEN: Taken = Taken(None, None, None, (), None, "")  # type: ignore[arg-type]


class Contender:
    """An application in this process, and what was measured of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.desk = WideDesk(folder / name.replace(" ", "-"))
        self.desk.publish_rows()
        self.client = Client(self.desk)
        self.app, changes = self.client.app, dict[str, Any]()
        self.direct: Direct = self.app.direct
        if name == "under way":
            remote = Challenger(lambda row: 0.5)
            challenger = Loaded(2, "sha256:two", FEATURE_SET, "2026-03-02", remote=remote)
            changes = {"challenger": challenger, "release": served_release(SHARE)}
        if name == "as before":
            self.direct.__class__ = WithoutReleases
        online = Online(self.desk.settings.home / "online" / f"{NAME}.db")
        self.client.serve(1, online=online, **changes)
        self.path: dict[str, list[float]] = {way: [] for way in WAYS}
        self.behind: dict[str, list[float]] = {way: [] for way in WAYS}

    async def run(self, bodies: Sequence[bytes], way: str) -> None:
        """Answer a slice, then fold what was noted; keep the CPU us a request of both."""
        make, settle = self.direct.make, self.direct.settle
        began = time.thread_time()
        for at in range(0, SLICE, TOGETHER):
            made = []
            for number in range(at, at + TOGETHER):
                one = make(NAME, _HEADERS, bodies[number % len(bodies)], _DEFAULTS)
                assert isinstance(one, Made), f"{way}: it took the long way"
                made.append(one)
            assert settle(made) is not None
        answered = time.thread_time()
        await self.app.evidence.fold_all()
        self.path[way].append((answered - began) / SLICE * 1e6)
        self.behind[way].append((time.thread_time() - answered) / SLICE * 1e6)


_HEADERS = {b"host": b"node.example", b"content-type": b"application/json"}
_DEFAULTS = [(b"server", b"evergreen")]


def measure(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Measure and return the figures by contender and way."""
    return asyncio.run(_measure(folder, rounds))


async def _measure(folder: Path, rounds: int) -> dict[str, Any]:
    contenders = {name: Contender(folder, name) for name in ("as before", "none", "under way")}
    places = Assignment(KEY)
    # Of the champion, and none of those that are mirrored: a shadow's costs are another figure.
    entities = [e for e in range(ENTITIES) if SHARE <= places.place(e) < WHOLE // 2]
    by_row = [json_of(features=named(row)) for row in rows(640)]
    of_champion = [
        body
        for body, row in zip(by_row, rows(640), strict=True)
        if SHARE <= places.place_of_row(json_of(**named(row))) < WHOLE // 2
    ]
    asked = {"entity": [json_of(entity=number) for number in entities], "row": of_champion}
    for number in range(-5, rounds):  # the first ones warm
        order = list(contenders.values())[:: 1 if number % 2 else -1]
        for way in WAYS:
            for one in order:
                await one.run(asked[way], way)
        if number == -1:
            for one in contenders.values():
                for kept in (*one.path.values(), *one.behind.values()):
                    kept.clear()
    found = {way: _differences(contenders, way) for way in WAYS}
    return found | {"write_ms": await _write_ms(contenders["under way"])}


def _differences(contenders: dict[str, Contender], way: str) -> dict[str, Any]:
    before, none, under_way = contenders.values()
    paths = [_costs(one.path[way]) for one in (before, none, under_way)]
    behind = _costs(under_way.behind[way])
    on_its_way = _less(paths[2], paths[1])
    return {
        "request": _figure(paths[1]),
        "none": _figure(_less(paths[1], paths[0])),
        "on its way": _figure(on_its_way),
        "behind it": _figure(behind),
        "under way": _figure([a + b for a, b in zip(on_its_way, behind, strict=True)]),
    }


def _costs(slices: list[float]) -> list[float]:
    """Return the cost by all slices, then by those of each part of the rounds."""
    parts = [slices[at::PARTS] for at in range(PARTS)]
    return [statistics.quantiles(one, n=round(1 / CHEAPEST))[0] for one in (slices, *parts)]


def _less(ours: list[float], theirs: list[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def _figure(costs: list[float]) -> dict[str, float]:
    return {"us": costs[0], "low": min(costs[1:]), "high": max(costs[1:])}


def exceeded(found: dict[str, Any]) -> list[str]:
    """Return the limits that are exceeded, by entity: a row without one is hashed besides."""
    return [
        f"costs: {name} {found['entity'][name]['us']:.2f} us, limit {limit}"
        for name, limit in LIMITS.items()
        if found["entity"][name]["us"] > limit
    ]


def table(found: dict[str, Any]) -> list[str]:
    """Return the figures as lines."""
    lines = [
        "  CPU us a request, of the cheapest tenth of the slices (spread over parts of the rounds)",
        f"    {'':<44} {'by entity':>24} {'by row':>24}",
    ]
    told = {
        "request": "a request, no release under way",
        "none": f"of releases in it (limit {LIMITS['none']})",
        "on its way": "more with one under way, before the answer",
        "behind it": "and behind it, to count it",
        "under way": f"both (limit {LIMITS['under way']}, by entity)",
    }
    for name, text in told.items():
        ways = [found[way][name] for way in WAYS]
        both = [f"{one['us']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in ways]
        lines.append(f"    {text:<44} {both[0]:>24} {both[1]:>24}")
    return [*lines, f"    a write of the windows, every 5 s: {found['write_ms']:.1f} ms of CPU"]


async def _write_ms(one: Contender) -> float:
    """Return the CPU ms of a write of what was counted, which a node does every five seconds."""
    records: Records = one.desk.records
    home = one.desk.settings.home

    async def run(work: Callable[..., Any], *arguments: object) -> None:
        await asyncio.to_thread(work, *arguments)

    writer = WindowRows(
        one.app.evidence,
        one.app.table,
        one.app.log,
        WindowFile(home / "serving" / "windows-1.json", home),
        node="here:1",
        boot="a" * 12,
        prefix=one.app.id_prefix,
        put=records.releases.put_windows,
        run=run,
    )
    usual, window_rows.WRITE_SECONDS = window_rows.WRITE_SECONDS, 0.0
    try:
        taken = []
        bodies = [json_of(entity=e) for e in range(ENTITIES) if Assignment(KEY).place(e) >= SHARE]
        for _ in range(9):
            await one.run(bodies, "entity")
            began = time.process_time()  # the rows are written by a thread
            await writer.turn()
            taken.append((time.process_time() - began) * 1e3)
    finally:
        window_rows.WRITE_SECONDS = usual
    return statistics.median(taken)
