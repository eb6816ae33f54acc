"""The command that tries the verdict on simulated releases: release simulate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import current_settings, find_use_case
from include.cli.output import json_option, print_json, print_table
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.deployment.release_plan import ReleasePlan
    from include.deployment.release_simulation import Outcome
    from include.deployment.simulated_traffic import Traffic

KEYS = ("challenger", "step", "releases", "rolled_back", "rate", "bound", "by", "after")
_EQUAL = "as good as the champion"


def simulate(
    use_case: Annotated[
        str | None,
        typer.Option("--use-case", "-u", metavar="NAME", help="Whose plan; else the defaults."),
    ] = None,
    releases: Annotated[
        int,
        typer.Option("--releases", metavar="N", min=1, help="How many releases of equal models."),
    ] = 1_000,
    worse: Annotated[
        int,
        typer.Option("--worse", metavar="N", min=0, help="How many of each worse model and step."),
    ] = 200,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Seed of its random numbers.")
    ] = 7,
    from_log: Annotated[
        bool,
        typer.Option(
            "--from-log",
            help="Take how often entities ask, the hours of the day and how slowness lasts from "
            "the use case's own imported log of seven days.",
        ),
    ] = False,
    as_json: Annotated[bool, json_option(KEYS)] = False,
) -> None:
    """Say how often a plan would roll back an equal model, and how surely it finds a worse one.

    Traffic is drawn: few entities send most requests, latency comes in bursts, processes restart.
    The rate of equal models has an upper bound of 99 %, which `release.false_rollback` should be
    above; the power is within 2,000 requests of 500 entities a step, by a log until its deadline at
    most. In JSON `after` has the challenger's requests at each end.
    """
    plan = _plan(use_case)
    rows = list(_rows(plan, releases, worse, seed, _recorded(use_case) if from_log else None))
    if as_json:
        print_json(rows)
        return
    _print_levels(plan)
    print_table(
        ("challenger", "step", "rolled back", "rate", "99 % bound", "by"),
        [
            (
                row["challenger"],
                row["step"],
                f"{row['rolled_back']} of {row['releases']}",
                f"{row['rate']:.2%}",
                "" if row["bound"] is None else f"{row['bound']:.2%}",
                row["by"],
            )
            for row in rows
        ],
    )


def _plan(use_case: str | None) -> ReleasePlan:
    """Return the plan of a use case, or that of one that says nothing of releases."""
    from include.config.use_case_release import Release
    from include.deployment.release_plan import ReleasePlan

    if use_case is None:
        return ReleasePlan.of_release(Release())
    return ReleasePlan.of(find_use_case(current_settings(), use_case))


def _recorded(use_case: str | None) -> Traffic:
    """Return the traffic of a use case's own log."""
    from include.clock import utc_now
    from include.deployment.recorded_traffic import traffic_of_log
    from include.pipeline.lakes import open_lake

    if use_case is None:
        raise ConfigError("--from-log needs the use case whose log it is; say --use-case NAME")
    return traffic_of_log(open_lake(current_settings()), use_case, utc_now())


def _print_levels(plan: ReleasePlan) -> None:
    """Write how the error rate is divided."""
    from include.deployment.levels import levels

    table = levels(plan)
    steps = list(dict.fromkeys(level.step for level in table))
    names = list(dict.fromkeys(level.what for level in table))
    found = {(level.what, level.step): level.level for level in table}
    print_table(
        ("level of", *steps),
        [
            (name, *(f"{found[name, step]:.5f}" if (name, step) in found else "" for step in steps))
            for name in names
        ],
        title=f"false_rollback {plan.false_rollback:g}, divided",
    )


def _rows(
    plan: ReleasePlan, releases: int, worse: int, seed: int, recorded: Traffic | None
) -> Iterator[dict[str, object]]:
    """Yield what the simulations found."""
    from include.deployment.levels import step_name
    from include.deployment.release_simulation import WORSE, power_at, simulate
    from include.deployment.simulated_traffic import Behaviour

    if not plan.steps:
        raise ConfigError("the plan has no steps: nothing is judged before the promotion")
    equal = simulate(plan, Behaviour(), releases=releases, seed=seed, traffic=recorded)
    yield _row(_EQUAL, "all", equal, True)
    for name, behaviour in WORSE.items():
        for step in plan.steps if worse else ():
            found = power_at(
                plan, step, behaviour, releases=worse, seed=seed + 1, recorded=recorded
            )
            yield _row(name, step_name(step), found, False)


def _row(challenger: str, step: str, outcome: Outcome, bounded: bool) -> dict[str, object]:
    by = ", ".join(f"{name} {count}" for name, count in sorted(outcome.by_metric.items()))
    bound = outcome.upper() if bounded else None
    values = (
        challenger, step, outcome.releases, outcome.rolled_back, outcome.rate, bound, by,
        " ".join(str(count) for count in sorted(outcome.after)),
    )  # fmt: skip
    return dict(zip(KEYS, values, strict=True))
