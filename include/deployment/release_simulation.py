"""Simulated releases: how often a model as good as the champion is rolled back, a worse one kept.

What judges is the code that judges releases, at many looks a step; what it judges is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from scipy.stats import beta

from include.deployment import levels
from include.deployment.release_metrics import Measured, StepSums, measure
from include.deployment.release_plan import DAY, PlannedStep, ReleasePlan
from include.deployment.simulated_traffic import LOOKS, Behaviour, Draw, Looks, Traffic
from include.predictions.window_counts import REQUESTS

LEAST, ENTITIES = (
    2_000,
    500,
)  # requests and entities of the challenger, within which a worse model must be found

Judge = Callable[[ReleasePlan, StepSums], dict[str, list[Measured]]]
WORSE = {
    "errors .1 % to 2 %": Behaviour(errors=0.02),
    "slow answers 1 % to 5 %": Behaviour(slow=0.05),
    "scores by .25 sd": Behaviour(shift=0.25),
}
"""Challengers that must be found: what the power is promised for."""


@dataclass
class Outcome:
    """What releases came to: how many were rolled back, by which metric and in which step.

    `after` are the requests of the challenger in that step by then, one of each.
    """

    releases: int = 0
    rolled_back: int = 0
    by_metric: dict[str, int] = field(default_factory=dict)
    by_step: dict[int, int] = field(default_factory=dict)
    after: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The part of the releases that were rolled back."""
        return self.rolled_back / max(1, self.releases)

    def upper(self, confidence: float = 0.99) -> float:
        """Return the upper bound of that part (Clopper, Pearson 1934, one-sided)."""
        if self.rolled_back >= self.releases:
            return 1.0
        return float(beta.ppf(confidence, self.rolled_back + 1, self.releases - self.rolled_back))


def simulate(
    plan: ReleasePlan,
    challenger: Behaviour,
    *,
    releases: int,
    seed: int,
    champion: Behaviour | None = None,
    traffic: Traffic | None = None,
    levels_of: ReleasePlan | None = None,
    judged: Judge | None = None,
    first: int = 0,
) -> Outcome:
    """Return what so many releases come to, each with entities, traffic and chance of its own.

    `levels_of` is the plan whose levels count, where only a part of its steps is looked at.
    `judged` measures in place of the judge's own code, to see what another test would have done.
    `first` is the number of the first release, so that parts may be run beside each other.
    """
    outcome = Outcome()
    for number in range(first, first + releases):
        rng = np.random.default_rng((seed, number))
        draw = Draw(rng, traffic or Traffic(), champion or Behaviour(), challenger)
        outcome.releases += 1
        for index, step in enumerate(plan.steps):
            looks = draw.step(levels_of or plan, step)
            failed, look = _failed(levels_of or plan, looks, judged or _measured)
            if failed:
                outcome.rolled_back += 1
                outcome.by_metric[failed] = outcome.by_metric.get(failed, 0) + 1
                outcome.by_step[index] = outcome.by_step.get(index, 0) + 1
                outcome.after.append(int(looks.sums.assigned.column(REQUESTS)[look].sum()))
                break
    return outcome


def power_at(
    plan: ReleasePlan,
    step: PlannedStep,
    challenger: Behaviour,
    *,
    releases: int,
    seed: int,
    recorded: Traffic | None = None,
) -> Outcome:
    """Return how many worse models a step finds within LEAST of ENTITIES, at its own level.

    Of both arms' processes one restarts in every fifth step, where equal models have two a step,
    and no entity's rows are slower than another's: the share is the one that is named. By
    `recorded` traffic a step has until its deadline at most: there may not be so many entities.
    """
    deadline = step.deadline if recorded else 30 * DAY
    asked = msgspec.structs.replace(
        step, requests=LEAST, entities=ENTITIES, deadline=deadline, bake=min(step.bake, 1800.0)
    )
    alone = msgspec.structs.replace(plan, steps=[asked])
    traffic = recorded or Traffic(requests_a_day=100_000, entities=20_000)
    traffic = replace(traffic, restarts=0.1, paces=0.0)
    return simulate(
        alone, challenger, releases=releases, seed=seed, traffic=traffic, levels_of=plan
    )


def _measured(plan: ReleasePlan, sums: StepSums) -> dict[str, list[Measured]]:
    return measure(plan.metrics, sums, absolute=False)


def _failed(plan: ReleasePlan, looks: Looks, judged: Judge) -> tuple[str, int]:
    """Return what failed a step before it could pass, and at which look; "" where it passed."""
    until = int(looks.passes.argmax()) if looks.passes.any() else LOOKS - 1
    first: tuple[int, str] = (looks.burns, "burn rate" if looks.burns < LOOKS else "")
    for name, parts in judged(plan, looks.sums).items():
        level = levels.metric_level(plan, name)
        for part in parts:
            crossed = np.flatnonzero(part.log_evidence()[: until + 1] >= -np.log(level))
            if crossed.size and crossed[0] < first[0]:
                first = (int(crossed[0]), name)
    return first[1], min(first[0], until)
