"""What a node gives the challenger of a release, and why nothing where it gives nothing.

A node acts without the records for as long as they are away, so it must know by itself when to
stop. Whoever judges a release beats; each beat that is new to this node lets the challenger go on
for some seconds by this machine's own clock. Two machines' clocks are never compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from include.deployment.release_plan import ReleasePlan
from include.errors import ConfigError, EvergreenError
from include.predictions.entity_hash import MARK
from include.records.records import Beat, Release, ServingRow
from include.serving.assignment import PAIRS, Assignment
from include.serving.snapshot import ServedRelease

LOOK_SECONDS = 0.25  # between two looks at whether the judge is still heard
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former is Linux' own
Guard = Callable[[str, str], str]  # the use case and the release; why the guard is latched, or ""


def seconds_since_boot() -> float:
    """Return the seconds since the machine's start, those among them in which it slept."""
    return time.clock_gettime(_CLOCK)


class ReleaseWatch:
    """Follows the beats of one use case's judge; belongs to the event loop."""

    def __init__(
        self,
        use_case: str,
        *,
        guard: Guard = lambda use_case, release: "",
        hasher: Callable[[], Callable[[str], str]] = lambda: str,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        """Build it.

        `guard` tells why this node itself has taken a release's traffic home, `hasher` returns the
        function by which the log, and so a plan, names entities whose keys tell who they are.
        """
        self._use_case, self._guard, self._clock = use_case, guard, clock
        self._hasher = hasher
        self._epoch = 0  # 0: the records were not read yet
        self._newest: tuple[str, int] | None = None
        self._until, self._seconds = 0.0, 0.0
        self._places: tuple[str, Assignment, Assignment] | None = None
        self.from_file = True  # until rows of the records were followed

    def hear(self, beat: Beat | None, epoch: int) -> None:
        """Take over the newest beat in the records.

        The first one of this start, or of an epoch, may be of any age: only the next is a sign.
        """
        newest = None if beat is None else (beat.release_id, beat.beat)
        is_first, self.from_file = epoch != self._epoch, False
        if is_first:
            self._epoch, self._newest, self._until = epoch, newest, 0.0
        elif beat is not None and _is_newer(newest, self._newest):
            self._newest, self._seconds = newest, beat.seconds
            self._until = self._clock() + beat.seconds

    def is_heard(self) -> bool:
        """Tell whether a new beat was heard, and not too long ago."""
        return self._clock() < self._until

    def released(
        self, row: ServingRow, *, is_tried: bool, taken_back: bool = False
    ) -> ServedRelease | None:
        """Return the release that a row is part of, as this node takes part in it.

        `is_tried` tells that the challenger has been loaded here and has its features,
        `taken_back` that this node has carried out a rollback which the row does not know yet.
        """
        release, route = row.release, row.route
        if release is None or route.release_id != release.id:
            return None  # the row was changed by this node, and is read again at once
        served = route.champion if release.state == "watched" else route.challenger
        if served != release.challenger:
            return None
        mode = {"shadow": "shadow", "canary": "canary"}.get(route.mode or "")
        plan, why = _read_plan(release)
        if not why and release.state == "running":
            why = self._why_not(release, is_tried=is_tried)
            why = "a rollback of this node is not in the records yet" if taken_back else why
        key = _read_key(route.release_key)
        if not key and not why and release.state == "running":
            why = "its row holds no secret, by which entities are assigned"
        try:
            places, sample = self._assignments(release, key, plan.exclude)
        except EvergreenError as error:  # then those may be asked of it who never should
            places, sample = Assignment(key), Assignment(key, purpose=PAIRS)
            if release.state == "running":
                why = f"whom its plan excludes cannot be told: {error}"
        return ServedRelease(
            id=release.id,
            step=release.step,
            mode=mode,  # type: ignore[arg-type]
            share=route.share if mode == "canary" and not why else 0,
            key=key,
            exclude=frozenset(plan.exclude),
            slow_us=plan.slow_us,
            availability=plan.slo.availability,
            is_active=mode is not None and not why,
            state=release.state,
            why=why,
            places=places,
            pairs=plan.pairs,
            sample=sample,
        )

    def _why_not(self, release: Release, *, is_tried: bool) -> str:
        if self.from_file:
            return "the rows are those of the last time, as the records are away"
        if release.suspended:
            return "the release is suspended"
        if why := self._guard(self._use_case, release.id):
            return f"this node's guard: {why}"
        if not self._until or self._newest is None or self._newest[0] != release.id:
            return "this node has heard no beat of the judge since its start"
        if not self.is_heard():
            return f"this node has heard no new beat of the judge for {self._seconds:g} s"
        return "" if is_tried else "the challenger is not ready on this node"

    def _assignments(
        self, release: Release, key: bytes, exclude: Collection[str]
    ) -> tuple[Assignment, Assignment]:
        """Return the places of a release and of its pairs, as they are known from step to step."""
        if self._places is None or self._places[0] != release.id:
            is_hashed = any(entity.startswith(MARK) for entity in exclude)
            name_of = self._hasher() if is_hashed else None
            arms = Assignment(key, exclude, name_of)
            pairs = Assignment(key, exclude, name_of, PAIRS)
            self._places = release.id, arms, pairs
        return self._places[1:]


def _is_newer(beat: tuple[str, int] | None, than: tuple[str, int] | None) -> bool:
    if beat is None or than is None or beat[0] != than[0]:
        return beat is not None
    return beat[1] > than[1]


def _read_key(text: str | None) -> bytes:
    """Return a release's secret; empty where there is none, so that nobody is assigned by it."""
    try:
        return bytes.fromhex(text or "")
    except ValueError:
        return b""


def _read_plan(release: Release) -> tuple[ReleasePlan, str]:
    """Return the plan of a release; one that a later version wrote gives nothing, and says so."""
    try:
        return ReleasePlan.read(release.id, release.plan), ""
    except ConfigError as error:
        return ReleasePlan(kind="canary"), str(error)
