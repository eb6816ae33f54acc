"""Sum the windows of a step to what its tests read: by arm, by cluster, by stretch of time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from include.deployment.release_metrics import ArmSums, StepSums
from include.deployment.sequential import Floats
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    CLUSTERS,
    COLUMNS,
    ERRORS,
    INVALID,
    NEITHER,
    PAIR_COLUMNS,
    REQUESTS,
    SHADOW,
    Counts,
    entity_count,
    total,
)
from include.records.nodes import Observation
from include.records.release_reports import Window

STRETCHES = 64  # of time, at most
ARMS = {CHALLENGER: (CHALLENGER, SHADOW), CHAMPION: (CHAMPION,)}
"""Arms as they are judged in a shadow step, where the challenger is asked what is mirrored."""
ARMS_OF_SHARE = {CHALLENGER: (CHALLENGER,), CHAMPION: (CHAMPION,)}
"""In a step with a share: what is mirrored there makes pairs, and is no request of anybody's."""


@dataclass(frozen=True)
class Counted:
    """A window with its counts read; where its errors are `left_out`, its rows have none."""

    window: Window
    counts: Counts
    left_out: bool = False

    @cached_property
    def rows(self) -> Floats:
        """The counts by cluster."""
        rows = np.asarray(self.counts.clusters, float)
        if self.left_out:
            rows[:, [ERRORS, INVALID]] = 0.0
        return rows


class StepWindows:
    """The windows of one step."""

    def __init__(self, windows: Iterable[Window], step: int, *, share: int = 0) -> None:
        """Read those of the step; `share` is that of its plan, 0 of a shadow step.

        Raises:
            ValueError: counts of another form, so nothing may be made of them.
        """
        self._arms = ARMS_OF_SHARE if share else ARMS
        mine = (window for window in windows if window.step == step)
        self.counted = [Counted(window, Counts.read(window.counts)) for window in mine]
        self._totals: dict[str, Counts] = {}

    def without_shared(self) -> StepWindows:
        """Return the windows as if what the model before the champion failed at were no errors."""
        made = copy(self)
        made.counted = [
            replace(one, left_out=one.window.answering == NEITHER) for one in self.counted
        ]
        return made

    def of(self, arm: str, *, answering: str | None = None) -> list[Counted]:
        """Return the windows of a judged arm, and of those what one model answered."""
        return [
            one
            for one in self.counted
            if one.window.arm in self._arms[arm] and answering in (None, one.window.answering)
        ]

    def sums(self) -> StepSums:
        """Return the sums that metrics are measured from."""
        minutes = sorted({one.window.minute for one in self.counted})
        place = _stretches(minutes)
        mine = self.of(CHALLENGER)
        return StepSums(
            assigned=_arm(mine, place),
            answered=_arm(self.of(CHALLENGER, answering=CHALLENGER), place),
            champion_assigned=_arm(self.of(CHAMPION), place),
            champion_answered=_arm(self.of(CHAMPION, answering=CHAMPION), place),
            pairs=_pairs([one for one in self.counted if one.window.arm == SHADOW]),
        )

    def arm_total(self, arm: str) -> Counts:
        """Return the sum of all that an arm was assigned."""
        if arm not in self._totals:
            self._totals[arm] = total(one.counts for one in self.of(arm))
        return self._totals[arm]

    def entities(self, arm: str) -> float:
        """Return by about how many entities' requests something is known of an arm's model."""
        return entity_count(self.arm_total(arm))

    def within(self, arm: str, after: int, until: int) -> tuple[Floats, Floats]:
        """Return the sums of an arm by cluster and by minute, of minutes above `after`."""
        place = {minute: minute - after - 1 for minute in range(after + 1, until + 1)}
        recent = [one for one in self.of(arm) if one.window.minute in place]
        arm_sums = _arm(recent, place)
        return arm_sums.clusters, arm_sums.times

    def by_node(self, arm: str) -> dict[str, tuple[int, int]]:
        """Return errors and requests of an arm, by node."""
        found: dict[str, tuple[int, int]] = {}
        for one in self.of(arm):
            errors, asked = found.get(one.window.node, (0, 0))
            found[one.window.node] = (
                errors + one.counts.column(ERRORS),
                asked + one.counts.column(REQUESTS),
            )
        return found

    def unknown_ends(self, observations: Sequence[Observation]) -> dict[str, list[str]]:
        """Return the starts of each node that ended without having said all, by node.

        A start has ended where its node lives as another one, or has gone on as another one since.
        Whatever does not live any more and was not started again is not waited for.
        """
        living = {one.node: one.boot for one in observations if one.living}
        boots: dict[str, dict[str, int]] = defaultdict(dict)
        closed: set[tuple[str, str]] = set()
        for one in self.counted:
            window = one.window
            newest = boots[window.node].get(window.boot, window.minute)
            boots[window.node][window.boot] = max(newest, window.minute)
            if window.closed:
                closed.add((window.node, window.boot))
        found = {}
        for node, minutes in boots.items():
            current = living.get(node) or max(minutes, key=lambda boot: minutes[boot])
            ended = [boot for boot in minutes if boot != current and (node, boot) not in closed]
            if ended:
                found[node] = sorted(ended)
        return found

    def unclean_ends(self, observations: Sequence[Observation]) -> Counter[str]:
        """Return how often each node was killed: those counted again since, and those unknown."""
        ends = Counter(
            {node: len(boots) for node, boots in self.unknown_ends(observations).items()}
        )
        for one in self.counted:
            if one.counts.unclean:
                ends[one.window.node] += one.counts.unclean
        return ends


def _stretches(minutes: Sequence[int]) -> Mapping[int, int]:
    """Return the stretch of time of each minute: whole minutes, all of one length."""
    if not minutes:
        return {}
    span = minutes[-1] - minutes[0] + 1
    length = -(-span // STRETCHES)
    return {minute: (minute - minutes[0]) // length for minute in minutes}


def _arm(counted: Collection[Counted], place: Mapping[int, int]) -> ArmSums:
    """Return the sums of windows, by cluster and by the stretch of time of their minute."""
    clusters = np.zeros((CLUSTERS, COLUMNS))
    times = np.zeros((max(place.values(), default=-1) + 1, COLUMNS))
    for one in counted:
        clusters += one.rows
        times[place[one.window.minute]] += one.rows.sum(axis=0)
    return ArmSums(clusters, times)


def _pairs(counted: Collection[Counted]) -> Floats | None:
    """Return the sums of what both models scored, whichever was asked behind the answer.

    None where that is nothing.
    """
    pairs = np.zeros((CLUSTERS, PAIR_COLUMNS))
    for one in counted:
        if one.counts.pairs:
            pairs += np.asarray(one.counts.pairs, float)
    return pairs if pairs.any() else None
