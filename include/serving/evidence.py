"""What a node counts of a release: noted at each request, folded beside them.

A request only appends a tuple. A loop folds the tuples, some hundred at a time so that no request
waits for it, into sums by (release, step, assigned arm, answering arm, minute): one window each. A
request counts in the minute in which it came, as its line in the log says it, so that the sums can
be made from the log again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from include.predictions.window_counts import CHALLENGER, CHAMPION, SHADOW, place_of
from include.serving.answer_log import Asked
from include.serving.snapshot import Served, ServedRelease
from include.serving.tally import Answered, Recent, Tally

FOLD_SECONDS = 1.0
SLICE = 256  # notes that are folded at once: 0.2 ms
# Of notes that nobody folded, which must not happen; what comes on top is counted as lost.
MAX_NOTES = 200_000
MAX_PLACES = 65_536  # entities of a release whose places are kept
MICROS_A_MINUTE = 60_000_000


class WindowKey(NamedTuple):
    """What a window is kept under, beside the node and its start; `arm` is the assigned one."""

    use_case: str
    release: str
    step: int
    arm: str
    answering: str
    minute: int


# What `note` keeps: the snapshot, the request, the arms, the entity, the score, the model's time,
# whether the score is above the threshold, why the assigned arm did not answer, the feature that
# was missed; and of a pair the score that the caller got, and whether that one is above.
Note = tuple[
    Served,
    Asked,
    str,
    str,
    int | str | None,
    float | None,
    int | None,
    bool,
    str | None,
    str | None,
    float | None,
    bool,
]


_Group = tuple[str, int, str, str, int]  # a window's key, without the use case


class Window:
    """The sums of a minute, and how much of them the records have.

    `is_dirty` says that they have changed since they were written, `is_written` that an earlier
    state of them was.
    """

    __slots__ = ("is_dirty", "is_written", "tally")

    def __init__(self) -> None:
        self.tally, self.is_dirty, self.is_written = Tally(), True, False


class Evidence:
    """The windows of a node; belongs to the event loop.

    `windows` are those that the records do not have whole; `floor` is the earliest minute that is
    counted in: an earlier one, of a clock that was set back, counts in it, as what the records have
    is not to be written over by less.
    """

    def __init__(
        self,
        hasher: Callable[[], Callable[[str], str]],
        lost: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Build it.

        `hasher` returns the function that names entities in the log; `lost` is told how many notes
        there was no room for.
        """
        self._hasher, self._lost = hasher, lost
        self._notes: list[Note] = []
        self._places: dict[str, dict[int | str, tuple[int, int]]] = {}
        self.windows: dict[WindowKey, Window] = {}
        self.floor = 0
        # Told each slice: the snapshot, the assigned arm, and what was counted of it.
        self.observers: list[Callable[[Served, str, Recent], object]] = []

    def note(
        self,
        served: Served,
        asked: Asked,
        *,
        assigned: str,
        answering: str,
        entity: int | str | None,
        score: float | None,
        model_us: int | None,
        above: bool,
        error: str | None = None,
        lacks: str | None = None,
    ) -> None:
        """Note a request of a snapshot with a release: whom it was meant for, and who answered.

        `error` is why the assigned arm did not answer (the reason of its line, or `INVALID_SCORE`),
        `lacks` the feature of the challenger's set that its row lacked. Where nobody answered,
        `answering` is `NOBODY` or `NEITHER`.
        """
        request = served, asked, assigned, answering, entity
        self._notes.append((*request, score, model_us, above, error, lacks, None, False))

    def note_all(self, notes: Iterable[Note]) -> None:
        """Note requests as `note` does, of which each is given as the tuple that it keeps.

        A call of its own, with names, costs each of them as much as all else that is done with it.
        """
        self._notes.extend(notes)

    def shadow(
        self,
        served: Served,
        asked: Asked,
        entity: int | str | None,
        *,
        score: float | None,
        model_us: int | None,
        above: bool,
        error: str | None,
        lacks: str | None = None,
        answered: tuple[float, bool],
        by: str = CHALLENGER,
    ) -> None:
        """Note what the model of an arm (`by`) answered to a mirrored request.

        `answered` is the score that the caller got, and whether it is at or above the threshold.
        """
        request = served, asked, SHADOW, by, entity
        self._notes.append((*request, score, model_us, above, error, lacks, *answered))

    def drop(self, served: Served, at: int, count: int = 1, *, by: str = CHALLENGER) -> None:
        """Count requests that were not mirrored for want of room; `at` as `Asked` has it.

        `by` is the arm whose model would have been asked.
        """
        if (release := served.release) is not None:
            name, minute = served.use_case.name, max(self.floor, at // MICROS_A_MINUTE)
            key = WindowKey(name, release.id, release.step, SHADOW, by, minute)
            window = self._window(key)
            window.tally.dropped += count
            window.is_dirty = True

    async def turn(self) -> None:
        """Wait a second, then fold what was noted."""
        await asyncio.sleep(FOLD_SECONDS)
        await self.fold_all()

    async def fold_all(self) -> None:
        """Fold what was noted; others have their turn in between, and may note more meanwhile."""
        while self._notes:
            self.fold(SLICE)
            await asyncio.sleep(0)

    def fold(self, most: int | None = None) -> None:
        """Fold notes, the oldest first, at most so many."""
        if (spare := len(self._notes) - MAX_NOTES) > 0:
            del self._notes[:spare]
            self._lost(spare)
        notes = self._notes[:most]
        del self._notes[:most]
        groups: dict[_Group, tuple[Served, ServedRelease, Window, list[Answered]]] = {}
        # Of the note before: nearly all are of its window, which needs no key to be made then.
        last: Served | None = None
        last_assigned = last_answering = ""
        begins = ends = 0
        for (
            served, asked, assigned, answering, entity, score, model_us, above, error, lacks,
            answered, was_above,
        ) in notes:  # fmt: skip
            if (
                not begins <= asked.at < ends
                or served is not last
                or assigned != last_assigned
                or answering != last_answering
            ):
                if (under_way := served.release) is None or under_way.state == "trying":
                    continue  # its first step has not begun
                release = under_way
                minute = max(self.floor, asked.at // MICROS_A_MINUTE)
                group = (release.id, release.step, assigned, answering, minute)
                found = groups.get(group)
                if found is None:
                    window = self._window(WindowKey(served.use_case.name, *group))
                    found = groups[group] = served, release, window, []
                _, release, window, answers = found
                places = self._places_of(release)
                last, last_assigned, last_answering = served, assigned, answering
                begins, ends = minute * MICROS_A_MINUTE, (minute + 1) * MICROS_A_MINUTE
            place = places.get(entity) if entity is not None else None
            if place is None:
                place = self._place(served, release, asked, entity)
            if answered is not None and score is not None and error is None:
                pair = (answered, score) if answering == CHAMPION else (score, answered)
                window.tally.take_pair(place[0], *pair, differ=above != was_above)
            if assigned == SHADOW and answering == CHAMPION:
                continue  # a pair, and no request of the champion's: its caller has its answer
            micros = None if asked.batch else model_us
            answers.append((place, score, micros, above, error, lacks))
        for (_, _, assigned, answering, _), (served, release, window, answers) in groups.items():
            recent, own = Recent(), assigned in (SHADOW, answering)
            window.tally.take(answers, release.slow_us, recent, own=own)
            window.is_dirty = True
            if not own:
                window.tally.fallbacks += recent.requests
            for observe in self.observers:
                observe(served, assigned, recent)

    def _window(self, key: WindowKey) -> Window:
        window = self.windows.get(key)
        if window is None:
            window = self.windows[key] = Window()
        return window

    def _place(
        self, served: Served, release: ServedRelease, asked: Asked, entity: int | str | None
    ) -> tuple[int, int]:
        """Return the cluster and the bit of who asked, under the name that the log has."""
        if entity is None:
            return place_of(release.key, asked.own_id)
        known = self._places_of(release)
        if len(known) >= MAX_PLACES:
            known.clear()
        name = str(entity)
        if served.use_case.log.hashes_entity:
            name = self._hasher()(name)
        place = known[entity] = place_of(release.key, name)
        return place

    def _places_of(self, release: ServedRelease) -> dict[int | str, tuple[int, int]]:
        """Return the places of a release's entities that are known."""
        known = self._places.get(release.id)
        if known is None:
            if len(self._places) > 8:  # of releases that have ended
                self._places.clear()
            known = self._places[release.id] = {}
        return known
