"""What `usecase check` says of the releases of a use case: how long they take, what they see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.cli.output import print_line, print_table
from include.config.durations import format_duration
from include.errors import EvergreenError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase


SEEN = ("errors", "slow")


def print_outlook(use_case: UseCase, settings: Settings) -> None:
    """Write how long each step of a release takes at the present traffic, and what it would see."""
    from include.clock import utc_now
    from include.deployment.outlook import outlook
    from include.deployment.release_plan import ReleasePlan
    from include.deployment.traffic import count_traffic
    from include.pipeline.lakes import open_lake

    plan = ReleasePlan.of(use_case)
    if not plan.steps:
        print_line("release: no steps; a model is promoted once it was tried, then watched")
        return
    try:
        traffic = count_traffic(open_lake(settings), use_case.name, utc_now())
    except EvergreenError as error:
        print_line(f"release: how long it takes cannot be said, {error}")
        return
    if plan.decided(traffic.requests, traffic.entities).thin:
        then = {
            "replay": "it is judged by past requests (release.thin: replay)",
            "hold": "its steps may end as aborted (release.thin: hold)",
        }
        print_line(f"release: too few requests for its steps; {then[plan.when_thin]}")
    if not traffic.requests:
        return  # there is nothing to reckon with
    a_day = f"{traffic.requests:.0f} requests of {traffic.entities:.0f} entities a day"
    print_table(
        ("step", "takes", "challenger's requests", "sees errors from", "sees slow answers from"),
        [
            (
                step.name,
                "longer than its deadline" if step.seconds is None else _about(step.seconds),
                step.requests,
                *(f"{step.seen[name]:.2%}" if name in step.seen else "" for name in SEEN),
            )
            for step in outlook(plan, traffic.requests, traffic.entities)
        ],
        title=f"release at {a_day}",
    )


def _about(seconds: float) -> str:
    """Return a duration in whole minutes."""
    from datetime import timedelta

    return format_duration(timedelta(minutes=max(1, round(seconds / 60))))
