"""What a plan comes to at the present traffic: how long it takes, and which worsening it sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from include.deployment import levels
from include.deployment.release_metrics import sought
from include.deployment.release_plan import DAY, PlannedStep, ReleasePlan
from include.deployment.sequential import Tally, seen_share
from include.predictions.window_counts import CLUSTERS

USUAL = {"errors": 0.001, "slow": 0.01}  # shares of a sound champion


@dataclass(frozen=True)
class StepOutlook:
    """A step: how many seconds it takes (None: its deadline is sooner), and what it would see.

    `requests` are the challenger's by then; `seen` the least share of bad answers that would fail
    it with a power of .9, by metric, of a champion as they usually are.
    """

    name: str
    seconds: float | None
    requests: int
    seen: dict[str, float]


def outlook(plan: ReleasePlan, requests_a_day: float, entities_a_day: float) -> list[StepOutlook]:
    """Return what each step of a plan comes to, were entities to ask evenly over the day."""
    return [_step(plan, step, requests_a_day, entities_a_day) for step in plan.steps]


def _step(
    plan: ReleasePlan, step: PlannedStep, requests_a_day: float, entities_a_day: float
) -> StepOutlook:
    asked, entities = requests_a_day * step.part / DAY, entities_a_day * step.part / DAY
    enough = max(
        step.bake,
        step.requests / asked if asked else np.inf,
        # The entities of the next day may be the same.
        step.entities / entities if entities * DAY >= step.entities else np.inf,
    )
    seconds = min(enough, step.deadline)
    requests = asked * seconds
    champions = requests if not step.share else requests * (1 - step.part) / step.part
    seen = {
        name: seen_share(
            _evenly(share, requests),
            _evenly(share, champions),
            plan.metrics[name].margin or 0.0,
            level=levels.metric_level(plan, name),
            sought=sought(plan.metrics[name].margin or 0.0),
        )
        for name, share in USUAL.items()
        if name in plan.metrics
    }
    takes = None if enough > step.deadline else float(seconds)
    return StepOutlook(levels.step_name(step), takes, int(requests), seen)


def _evenly(share: float, requests: float) -> Tally:
    """Return a tally whose requests lie evenly over the clusters."""
    asked = np.full(CLUSTERS, requests / CLUSTERS)
    return Tally(share * asked, asked)
