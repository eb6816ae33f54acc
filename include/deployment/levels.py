"""How the one error rate of a release is divided over all that could roll back an equal model."""

from __future__ import annotations

from typing import NamedTuple

from include.deployment.release_plan import PlannedStep, ReleasePlan

# Parts of `false_rollback`. What burns or kills is far from chance, so that little is enough for
# it; the metrics need most.
GUARD = 0.05
BURN = 0.05
METRICS = 0.9
WEIGHTS = {
    **{"errors": 4, "slow": 4, "scores": 4},
    **{"invalid": 1, "decisions": 1, "parity": 1, "auc": 1},
}
"""The metrics that can fail a step, and how much each needs; what is lacking only holds it."""
LIMITED = ("errors", "slow", "invalid")
WATCHED = "watched"


class Level(NamedTuple):
    """A part of the error rate: what may use it, in which step, and how much that is."""

    what: str
    step: str
    level: float


def levels(plan: ReleasePlan) -> list[Level]:
    """Return the table: guard, burn rate, and each metric in each step; it sums to the whole.

    What is watched after the promotion counts as a step, of the metrics that have a limit. By
    Bonferroni's inequality the sum bounds the chance that any of them fails an equal model, however
    they depend on each other.
    """
    whole = plan.false_rollback
    table = [Level("guard", "all", whole * GUARD), Level("burn rate", "all", whole * BURN)]
    return table + [
        Level(name, step, metric_level(plan, name))
        for step in _steps(plan)
        for name in _tested_in(plan, step)
    ]


def metric_level(plan: ReleasePlan, name: str) -> float:
    """Return the level of one metric in one step."""
    weights = [WEIGHTS[each] for step in _steps(plan) for each in _tested_in(plan, step)]
    return plan.false_rollback * METRICS * WEIGHTS[name] / sum(weights)


def burn_level(plan: ReleasePlan) -> float:
    """Return the level of the burn rate in one of its windows of two minutes."""
    seconds = sum(step.deadline for step in plan.steps) + plan.watch
    return plan.false_rollback * BURN / max(1.0, seconds / 120)


def step_name(step: PlannedStep) -> str:
    """Return what a step is called: shadow, or its share."""
    return f"{step.share / 100:g} %" if step.share else "shadow"


def _tested_in(plan: ReleasePlan, step: str) -> list[str]:
    """Return the metrics that can fail a step; a champion that is watched has its limits alone."""
    names = [name for name in WEIGHTS if name in plan.metrics]
    return [name for name in names if name in LIMITED] if step == WATCHED else names


def _steps(plan: ReleasePlan) -> list[str]:
    """Return the names of the steps that can fail."""
    if plan.replays:
        return ["replay", WATCHED]
    return [*map(step_name, plan.steps), WATCHED]
