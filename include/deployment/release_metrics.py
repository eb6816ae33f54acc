"""The metrics of a step, from sums over clusters: how far each is beyond what is tolerated.

The last axes of all sums are the clusters and the columns of `window_counts`; leading ones are
releases or looks, of which the simulation has many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from include.deployment import sequential
from include.deployment.release_plan import Rule
from include.deployment.sequential import Deviate, Floats, Ratio, Tally
from include.predictions.window_counts import (
    ABOVE,
    DIFFERENCE_SUM,
    ERRORS,
    INVALID,
    PAIRED,
    REQUESTS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SLOW,
    TIMED,
)

SPREAD = 2.5  # margins of the mean by which the log of the spread of scores may move
# Parts of the scores' level: of their mean by pairs and by the requests of each arm, and of their
# spread. All three are looked at always, so the parts are fixed: a test that were chosen by what
# has come so far would have its level once by each choice.
BY_PAIRS, BY_ARMS, BY_SPREAD = 0.6, 0.15, 0.25
LEAST_PAIRS = 50  # fewer are of a few entities, each with a difference of its own
# Of each share: bad answers of which; by the arm that was assigned, or the one that answered.
_SHARES = {"errors": (ERRORS, REQUESTS), "invalid": (INVALID, REQUESTS), "slow": (SLOW, TIMED)}
BY_ANSWERING = {"slow", "scores"}


@dataclass(frozen=True)
class ArmSums:
    """The sums of an arm: by cluster of entities, and by stretch of time."""

    clusters: Floats
    times: Floats

    def tally(self, name: str) -> Tally:
        """Return the bad answers of a metric."""
        bad, asked = _SHARES[name]
        return Tally(
            self.clusters[..., bad],
            self.clusters[..., asked],
            (self.times[..., bad], self.times[..., asked]),
        )

    def column(self, column: int) -> Floats:
        """Return a column, by cluster."""
        return self.clusters[..., column]


@dataclass(frozen=True)
class StepSums:
    """What a step has brought, by the arm that was assigned and by the one that answered.

    `pairs` are differences of scores on requests that both models scored: in a shadow step all, in
    a step with a share those of a sample of the entities.
    """

    assigned: ArmSums
    answered: ArmSums
    champion_assigned: ArmSums
    champion_answered: ArmSums
    pairs: Floats | None = None

    def arms(self, name: str) -> tuple[ArmSums, ArmSums]:
        """Return challenger and champion as a metric counts them."""
        if name in BY_ANSWERING:
            return self.answered, self.champion_answered
        return self.assigned, self.champion_assigned


@dataclass(frozen=True)
class Measured:
    """A metric as it was found: how far beyond what is tolerated, and what the test looks for.

    `sides` is what its level is divided by, where more than one deviate may use it.
    """

    deviate: Deviate
    sought: float
    sides: float = 1.0

    def log_evidence(self) -> Floats:
        """Return the log of the evidence against the challenger, its sides paid for."""
        evidence = sequential.log_evidence(self.deviate, self.sought)
        return np.asarray(evidence - np.log(self.sides), float)


def measure(
    rules: Mapping[str, Rule], sums: StepSums, *, absolute: bool
) -> dict[str, list[Measured]]:
    """Return what was found of each metric that is counted in windows.

    `absolute` compares with limits in place of a champion; metrics without a limit are left out.
    """
    found: dict[str, list[Measured]] = {}
    for name in _SHARES:
        if name in rules:
            found[name] = [share(name, rules[name], sums, absolute=absolute)]
    if absolute:
        return found
    if "decisions" in rules:
        margin = rules["decisions"].margin or 0.0
        deviate = sequential.beyond(decisions(sums), margin)
        found["decisions"] = [Measured(deviate, sought_move(margin), 2.0)]
    if "scores" in rules:
        margin = rules["scores"].margin or 0.0
        means = [(arm_scores(sums), BY_ARMS)]
        if (paired := paired_scores(sums)) is not None:
            means = [(paired, BY_PAIRS), *means]
        spread = sequential.beyond(score_spread(sums), SPREAD * margin)
        found["scores"] = [
            *(Measured(sequential.beyond(m, margin), sought_move(margin), 2 / p) for m, p in means),
            Measured(spread, sought_move(SPREAD * margin), 2 / BY_SPREAD),
        ]
    return found


def share(name: str, rule: Rule, sums: StepSums, *, absolute: bool) -> Measured:
    """Return how far a share of bad answers is above the champion's, or above its limit."""
    mine, champion = (arm.tally(name) for arm in sums.arms(name))
    if absolute:
        limit = 1.0 if rule.limit is None else rule.limit
        return Measured(sequential.share_above_limit(mine, limit), sought(limit))
    margin = rule.margin or 0.0
    return Measured(sequential.share_above(mine, champion, margin), sought(margin))


def decisions(sums: StepSums) -> Ratio:
    """Return by how much the share of answers at or above the threshold has moved."""
    mine, champion = sums.arms("decisions")
    return sequential.moved(
        mine.column(ABOVE), mine.column(SCORED), champion.column(ABOVE), champion.column(SCORED)
    )


def paired_scores(sums: StepSums) -> Ratio | None:
    """Return by how much the mean score has moved on requests that both models scored.

    In standard deviations of the champion's. Differences are hardly spread where the models
    resemble each other, while different entities differ by themselves. None: there are too few; of
    many looks those with too few have no degrees of freedom.
    """
    if sums.pairs is None:
        return None
    count, spread = sums.pairs[..., PAIRED], deviation(sums.arms("scores")[1])
    enough = count.sum(-1) >= LEAST_PAIRS
    if not np.any(enough):
        return None
    moved = sequential.ratio(sums.pairs[..., DIFFERENCE_SUM], count)
    return Ratio(moved.value / spread, moved.error / spread, np.where(enough, moved.df, 0.0))


def arm_scores(sums: StepSums) -> Ratio:
    """Return by how much the mean score has moved from the champion's requests to its own.

    In standard deviations of the champion's.
    """
    mine, champion = sums.arms("scores")
    spread = deviation(champion)
    moved = sequential.moved(
        *(mine.column(SCORE_SUM), mine.column(SCORED)),
        *(champion.column(SCORE_SUM), champion.column(SCORED)),
    )
    return Ratio(moved.value / spread, moved.error / spread, moved.df)


def score_spread(sums: StepSums) -> Ratio:
    """Return the log of how much wider the scores are spread than the champion's."""
    mine, champion = sums.arms("scores")
    columns = (SCORED, SCORE_SUM, SCORE_SQUARES)
    return sequential.spread_moved(
        tuple(mine.column(column) for column in columns),
        tuple(champion.column(column) for column in columns),
    )


def deviation(arm: ArmSums) -> Floats:
    """Return the standard deviation of an arm's scores, in thousandths as they are summed."""
    count = np.maximum(arm.column(SCORED).sum(-1), 1)
    mean = arm.column(SCORE_SUM).sum(-1) / count
    variance = arm.column(SCORE_SQUARES).sum(-1) / count - np.square(mean)
    return np.asarray(np.sqrt(np.maximum(variance, 1.0)), float)


def sought(margin: float) -> float:
    """Return the worsening of a share that a test looks for most: some margins, or a hundredth."""
    return max(4 * margin, 0.01)


def sought_move(margin: float) -> float:
    """Return the move beyond its margin that a test looks for most."""
    return max(1.5 * margin, 0.01)
