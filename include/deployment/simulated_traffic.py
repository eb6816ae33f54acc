"""What a simulated release is asked, and what two models make of it, by the sums of the judge.

Traffic is as unfriendly as it comes: few entities send most of the requests, some of them have rows
that every model fails, hours of the day differ, latency comes in bursts that last, processes
restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.deployment import levels
from include.deployment.burn_rate import LASTING, LEAST_BAD, LEAST_BAD_OTHER, burn_of, is_clear
from include.deployment.release_metrics import ArmSums, StepSums
from include.deployment.release_plan import DAY, PAIRS_OF_ONE, PlannedStep, ReleasePlan
from include.deployment.sequential import Floats, Tally
from include.predictions.window_counts import (
    ABOVE,
    CLUSTERS,
    COLUMNS,
    DIFFERENCE_SUM,
    ERRORS,
    PAIR_COLUMNS,
    PAIRED,
    REQUESTS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SLOW,
    THOUSANDTHS,
    TIMED,
)

Ints = NDArray[np.int64]
_ARMS = ("challenger", "champion")

LOOKS = 64  # a step
STRETCHES = 64  # of time, as the judge has at most
_HOURS = 1 + 0.8 * np.sin((np.arange(24) - 8) / 24 * 2 * np.pi)  # requests by the hour of the day


@dataclass(frozen=True)
class Traffic:
    """What a use case is asked: `tail` is the exponent of how often an entity asks, by its rank.

    Of a log (`recorded_traffic`) `asked` are the requests of each entity, in place of `entities`
    and `tail`, and `hours` how many come in each hour of the day, to any scale. `bad_rows` is the
    part of the entities whose rows every model fails, half of the time; `bursts` the standard
    deviation of the log of how slow a minute is, and `lasting` how much of that goes on into the
    next; `paces` is that of the log of how slow an entity's rows are.
    """

    requests_a_day: float = 40_000
    entities: int = 4_000
    tail: float = 1.1
    bad_rows: float = 0.001
    bursts: float = 0.5
    lasting: float = 0.9
    paces: float = 0.8
    restarts: float = 1.0  # a step, each of both arms' processes
    asked: tuple[int, ...] = ()
    hours: tuple[float, ...] = ()


@dataclass(frozen=True)
class Behaviour:
    """How a model behaves: shares of errors and of slow answers, its scores against the champion's.

    `shift` and `own` are in standard deviations of the scores: what all scores are moved by, and by
    how much each entity's differs from the champion's, as after any training.
    """

    errors: float = 0.001
    slow: float = 0.01
    shift: float = 0.0
    own: float = 0.2


@dataclass(frozen=True)
class _Answers:
    """What a model makes of every request, were it asked; scores are in thousandths."""

    error: NDArray[np.bool_]
    slow: NDArray[np.bool_]
    above: NDArray[np.bool_]
    score: Floats


@dataclass(frozen=True)
class Looks:
    """The sums of a step at each look, and whether it would have passed there.

    `burns` is the look at which the challenger burned alone before it could pass; LOOKS: at none.
    """

    sums: StepSums
    passes: NDArray[np.bool_]
    burns: int


class Draw:
    """The chance of one release: its entities, and what they and both models do."""

    def __init__(
        self, rng: np.random.Generator, traffic: Traffic, champion: Behaviour, challenger: Behaviour
    ) -> None:
        self.rng, self.traffic = rng, traffic
        self.champion, self.challenger = champion, challenger
        count = len(traffic.asked) or traffic.entities
        weights = np.asarray(traffic.asked, float)
        if not traffic.asked:
            weights = (np.arange(count) + 3.0) ** -traffic.tail * rng.gamma(2.0, 0.5, count)
        self.cumulative = np.cumsum(weights)
        self.cumulative /= self.cumulative[-1]
        # The basis points of an entity are fixed for a release: who is in 5 % is in 25 % too.
        self.place = rng.integers(0, 10_000, count)
        self.cluster = rng.integers(0, CLUSTERS, count)
        self.liking = rng.normal(0.0, 1.0, count)
        self.own = rng.normal(0.0, 1.0, count)
        self.bad = rng.random(count) < traffic.bad_rows
        self.pace = np.exp(rng.normal(0.0, traffic.paces, count) - traffic.paces**2 / 2)
        self.hour = rng.uniform(0, 24)
        self.sample = rng.integers(0, 10_000, count)  # as `place`, of whom both models score
        hours = np.asarray(traffic.hours or _HOURS, float)
        self.hours = np.maximum(hours / hours.mean(), 1e-3)  # an hour of none would have no length

    def step(self, plan: ReleasePlan, step: PlannedStep) -> Looks:
        """Return a step of which all looks are drawn, to where it must have passed."""
        needed = int(1.3 * max(step.requests, 1) / step.part) + 200
        while True:
            entity = np.searchsorted(self.cumulative, self.rng.random(needed))
            seconds = self._times(needed, step.deadline)
            mine = np.ones(needed, bool) if step.share == 0 else self.place[entity] < step.share
            passes_at = self._passes_at(step, entity, seconds, mine)
            if passes_at < needed or seconds[-1] > step.deadline:
                break
            needed *= 2
        last = max(passes_at + 1, 60) if passes_at < needed else needed
        return self._looks(plan, step, entity[:last], seconds[:last], mine[:last], passes_at)

    def _times(self, count: int, deadline: float) -> Floats:
        """Return when requests come, in seconds of the step; hours of the day differ.

        All that would come a day after the deadline, or later, comes then.
        """
        hours = np.arange(24 * (int(deadline / DAY) + 2))
        rate = self.traffic.requests_a_day / 24 * self.hours[(hours + int(self.hour)) % 24]
        expected = np.concatenate([[0.0], np.cumsum(rate)])
        at = np.cumsum(self.rng.exponential(1.0, count))
        return np.asarray(np.interp(at, expected, np.arange(expected.size) * 3600.0), float)

    def _passes_at(
        self, step: PlannedStep, entity: Ints, seconds: Floats, mine: NDArray[np.bool_]
    ) -> int:
        """Return the request with which a step has all that it needs; beyond the last if none."""
        first_seen = np.zeros(entity.size, bool)
        first_seen[np.unique(entity, return_index=True)[1]] = True
        enough = (
            (np.cumsum(mine) >= step.requests)
            & (np.cumsum(mine & first_seen) >= step.entities)
            & (seconds >= step.bake)
        )
        return int(enough.argmax()) if enough.any() else entity.size

    def _looks(
        self,
        plan: ReleasePlan,
        step: PlannedStep,
        entity: Ints,
        seconds: Floats,
        mine: NDArray[np.bool_],
        last: int,
    ) -> Looks:
        """Return the sums at looks that are spread over the requests, early ones among them."""
        edges = np.unique(np.linspace(0, entity.size, LOOKS + 1).astype(int))
        look = np.searchsorted(edges, np.arange(entity.size), side="right") - 1
        slowness = self._slowness(seconds)
        champion = self._answers(self.champion, entity, seconds, slowness, None)
        challenger = self._answers(self.challenger, entity, seconds, slowness, self.challenger.own)
        theirs = ~mine if step.share else np.ones(entity.size, bool)
        asked = {
            "champion": _columns(champion, theirs),
            "challenger": _columns(challenger, mine),
        }
        arms = {name: self._arm(columns, entity, look) for name, columns in asked.items()}
        # Whichever answered, the other one is asked behind the answer.
        is_paired = _first_of_each(entity, self.sample[entity] < plan.pairs) if step.share else mine
        pairs = None
        if is_paired.any():
            columns = _pair_columns(challenger, champion, is_paired)
            pairs = self._by_cluster(columns, entity, look)
        passes = np.zeros(LOOKS, np.bool_)
        if last < entity.size:
            passes[look[last] :] = True
        mine_sums, champion_sums = arms["challenger"], arms["champion"]
        sums = StepSums(mine_sums, mine_sums, champion_sums, champion_sums, pairs)
        end = min(last, entity.size - 1)
        burns = self._burns(plan, {n: c[:, :end] for n, c in asked.items()}, entity, seconds)
        return Looks(sums, passes, LOOKS if burns is None else int(look[burns]))

    def _burns(
        self, plan: ReleasePlan, asked: Mapping[str, Floats], entity: Ints, seconds: Floats
    ) -> int | None:
        """Return the last request of the minute at whose end the challenger burns alone."""
        minute = (seconds // 60).astype(int)[: asked["champion"].shape[1]]
        if not minute.size:
            return None
        by_minute = {
            name: [_summed(minute, columns[column]) for column in (ERRORS, REQUESTS)]
            for name, columns in asked.items()
        }
        level = levels.burn_level(plan)
        many = np.convolve(by_minute["challenger"][0], np.ones(10))[: minute[-1] + 1] >= LEAST_BAD
        for now in np.flatnonzero(many):
            last = slice(max(0, int(now) - 9), int(now) + 1)
            mine, champion = (
                burn_of(by_minute[name][0][last], by_minute[name][1][last], plan.slo)
                for name in _ARMS
            )
            lasts = mine.burns() and mine.minutes >= LASTING
            if not lasts or champion.burns(LEAST_BAD_OTHER):
                continue
            inside = np.flatnonzero((minute >= last.start) & (minute <= now))
            cluster = self.cluster[entity[inside]]
            tallies = [_tally(asked[name][:, inside], cluster) for name in _ARMS]
            if is_clear(tallies[0], tallies[1], plan.slo, level):
                return int(inside[-1])
        return None

    def _slowness(self, seconds: Floats) -> Floats:
        """Return by how much each request is likelier to be slow: what a minute is goes on."""
        minutes = (seconds // 60).astype(int)
        keep = self.traffic.lasting
        bursts = self.traffic.bursts
        noise = self.rng.normal(0, bursts * np.sqrt(1 - keep**2), minutes[-1] + 1)
        state = np.empty_like(noise)
        now = self.rng.normal(0, bursts)
        for index, shock in enumerate(noise):
            now = keep * now + shock
            state[index] = now
        # A log-normal of mean 1: most minutes are quick, few are slow for everybody.
        return np.asarray(np.exp(state - bursts**2 / 2)[minutes], float)

    def _answers(
        self,
        model: Behaviour,
        entity: Ints,
        seconds: Floats,
        slowness: Floats,
        own: float | None,
    ) -> _Answers:
        """Return what a model answers; `own` is how much its scores differ by entity."""
        size = entity.size
        chance = self.rng.random((2, size))
        error = chance[0] < np.where(self.bad[entity], 0.5, model.errors)
        slow = np.minimum(model.slow * slowness * self.pace[entity], 1.0)
        for _ in range(self.rng.poisson(self.traffic.restarts)):
            begun = self.rng.uniform(0, seconds[-1])
            down = (seconds >= begun) & (seconds < begun + 3)
            cold = (seconds >= begun) & (seconds < begun + 30)
            error, slow = error | down, np.where(cold, np.maximum(slow, 0.3), slow)
        liking = self.liking[entity] + model.shift
        if own is not None:
            liking = liking + own * self.own[entity]
        score = 1 / (1 + np.exp(-(liking - 0.5)))
        return _Answers(error, chance[1] < slow, score >= 0.5, np.round(score * THOUSANDTHS))

    def _arm(self, columns: Floats, entity: Ints, look: Ints) -> ArmSums:
        """Return the sums of an arm at each look, by cluster and by stretch of time."""
        by_look = np.stack([np.bincount(look, column, LOOKS) for column in columns], axis=-1)
        stretch = np.arange(LOOKS) * STRETCHES // LOOKS
        times = np.zeros((LOOKS, STRETCHES, COLUMNS))
        times[np.arange(LOOKS), stretch] = by_look
        return ArmSums(self._by_cluster(columns, entity, look), np.cumsum(times, axis=0))

    def _by_cluster(self, columns: Floats, entity: Ints, look: Ints) -> Floats:
        """Return sums by look and cluster, each look with all before it."""
        cell = look * CLUSTERS + self.cluster[entity]
        sums = [np.bincount(cell, column, LOOKS * CLUSTERS) for column in columns]
        cells = np.stack(sums, axis=-1).reshape(LOOKS, CLUSTERS, -1)
        return np.cumsum(cells, axis=0)


def _columns(answers: _Answers, asked: NDArray[np.bool_]) -> Floats:
    """Return the columns of the window counts, a row each, of the requests that a model had."""
    scored = asked & ~answers.error
    score = np.where(scored, answers.score, 0.0)
    columns = np.zeros((COLUMNS, asked.size))
    columns[REQUESTS], columns[ERRORS] = asked, asked & answers.error
    columns[SLOW], columns[ABOVE] = scored & answers.slow, scored & answers.above
    columns[SCORED], columns[SCORE_SUM], columns[SCORE_SQUARES] = scored, score, np.square(score)
    columns[TIMED] = scored
    return columns


def _pair_columns(mine: _Answers, champion: _Answers, is_paired: NDArray[np.bool_]) -> Floats:
    """Return the columns of pairs, a row each, that a test of means reads."""
    both = is_paired & ~mine.error & ~champion.error
    columns = np.zeros((PAIR_COLUMNS, both.size))
    columns[PAIRED], columns[DIFFERENCE_SUM] = both, np.where(both, mine.score - champion.score, 0)
    return columns


def _first_of_each(entity: Ints, is_sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which sampled requests are among the first of their entity, as a node takes them."""
    sampled = np.flatnonzero(is_sampled)
    order = sampled[np.argsort(entity[sampled], kind="stable")]
    sorted_entity = entity[order]
    begins = np.searchsorted(sorted_entity, sorted_entity)
    first = np.zeros(entity.size, np.bool_)
    first[order[np.arange(order.size) - begins < PAIRS_OF_ONE]] = True
    return first


def _tally(columns: Floats, cluster: Ints) -> Tally:
    """Return the errors of some requests, by cluster."""
    bad, asked = (_summed(cluster, columns[one], CLUSTERS) for one in (ERRORS, REQUESTS))
    return Tally(bad, asked)


def _summed(place: Ints, column: Floats, least: int = 0) -> Floats:
    """Return the sums of a column by place."""
    return np.asarray(np.bincount(place, column, least), float)
