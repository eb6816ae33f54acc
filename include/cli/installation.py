"""Commands that touch what is live: backfill, rollback, release, password, serve, up, stop."""

from __future__ import annotations

from typing import Annotated

import typer

from include.cli.context import (
    Reason,
    UseCaseArgument,
    Yes,
    actor,
    ask,
    current_settings,
    find_use_case,
    keys_between,
    newest_for,
    open_records,
    say,
    show,
)
from include.errors import ConfigError


def backfill(
    use_case: UseCaseArgument,
    first: Annotated[
        str, typer.Option("--from", metavar="KEY", help="First partition of the range.")
    ],
    last: Annotated[
        str, typer.Option("--to", metavar="KEY", help="Last partition of the range, included.")
    ],
    backwards: Annotated[bool, typer.Option("--backwards", help="Run the newest first.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also run those again that Airflow has run already.")
    ] = False,
    at_once: Annotated[
        int,
        typer.Option(
            "--at-once", metavar="N", min=1, help="How many partitions are ingested at once."
        ),
    ] = 10,
    yes: Yes = False,
) -> None:
    """Train and judge a model for each partition of a range, through Airflow; nothing is released.

    What their trainings look back on is loaded first. Shows the partitions, then asks.
    """
    from include.clock import utc_now
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline import history
    from include.point_in_time.partitions import earlier

    settings, now = current_settings(), utc_now()
    case = find_use_case(settings, use_case)
    keys = keys_between(case, first, last)
    newest_for(case, keys[-1:])
    records = open_records(settings)
    known = {row.key: row for row in records.partitions.of(case.name)}
    show(
        ("partition", "recorded as"),
        [
            (key, f"{known[key].mode}/{known[key].target}" if key in known else "new")
            for key in keys
        ],
    )
    before = earlier(case, keys[0])
    load = history.plan_missing(case, records, keys[0], before, now) if before else None
    if load:
        oldest = load["materialize_features"][0]
        say(
            f"their training looks back on {oldest} to {before}, which is loaded first, through "
            "load_history"
        )
    dag = f"{case.name}__ingest_data"
    with AirflowApi(settings) as api:
        if api.paused(dag):
            raise ConfigError(
                f"{dag} is paused, so a backfill would not run; unpause it in Airflow's UI first"
            )
        ask(f"Backfill these {len(keys)} partition(s) of {case.name}?", yes=yes)
        if load:
            api.trigger(
                f"{case.name}__load_history",
                conf={"first": load["materialize_features"][0], "last": before},
            )
            api.pause(f"{case.name}__load_history", False)
        number = api.backfill(
            dag,
            keys[0],
            keys[-1],
            max_active_runs=at_once,
            backwards=backwards,
            reprocess="completed" if again else "none",
        )
    say(
        f"backfill {number} of {len(keys)} partition(s) is on its way; watch `evergreen status "
        f"{case.name}`"
    )


def rollback(
    use_case: UseCaseArgument,
    lift: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="MODEL",
            help="Lift a hold instead; the same as `evergreen release`.",
        ),
    ] = None,
    reason: Reason = "",
    challenger: Annotated[
        bool, typer.Option("--challenger", help="Take back the challenger; the champion stays.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Take the champion back: the previous model serves again, and the one taken back is on hold.

    A model on hold is not promoted again until `evergreen release` lifts the hold. Other models
    that were trained before the rollback are not promoted either. Shows what serves, then asks.
    """
    from include.deployment import rollout

    if lift is not None:
        release(use_case, lift, reason=reason, yes=yes)
        return
    settings = current_settings()
    case = find_use_case(settings, use_case)
    route = open_records(settings).routes.get(case.name)
    columns = ("champion", "previous", "challenger", "generation")
    show(columns, [(route.champion, route.previous, route.challenger, route.generation)])
    ask(f"Roll {case.name} back?", yes=yes)
    changed = rollout.rollback(
        settings,
        case.name,
        actor(),
        reason,
        of="challenger" if challenger else "champion",
        expect_generation=route.generation,
    )
    say(
        f"{case.name}: champion is version {changed.champion}, generation {changed.generation}; "
        f"held: {', '.join(changed.held)}"
    )


def release(
    use_case: UseCaseArgument,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Version of a model on hold, or the beginning of its digest."
        ),
    ],
    reason: Reason = "",
    yes: Yes = False,
) -> None:
    """Lift the hold that a rollback put on a model, so that it may be promoted again.

    It does not serve by this alone: whether it is promoted is decided as for any other model.
    `evergreen models` shows what is on hold.
    """
    from include.deployment import rollout

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    held = records.routes.get(case.name).held
    known = [one for one in records.models.of(case.name) if one.model_digest in held]
    named = [
        one
        for one in known
        if str(one.version) == model or one.model_digest.startswith((model, f"sha256:{model}"))
    ]
    if len({one.model_digest for one in named}) != 1:
        shown = (
            ", ".join(f"version {one.version} ({one.model_digest[:19]})" for one in known)
            or "nothing"
        )
        raise ConfigError(
            f"{model!r} names no single model on hold of {case.name}; on hold is {shown}"
        )
    ask(
        f"Let version {named[0].version} ({named[0].model_digest[:19]}) be promoted again?", yes=yes
    )
    rollout.release_hold(settings, case.name, named[0].version, actor(), reason)
    say(f"{case.name}: version {named[0].version} is no longer on hold")


def password() -> None:
    """Show the user and password for Airflow's pages."""
    import json

    from include.orchestration.airflow_api import ADMIN, password_file

    path = password_file(current_settings())
    try:
        found = json.loads(path.read_text())[ADMIN]
    except (OSError, ValueError, KeyError):
        raise ConfigError(
            f"{path} holds no password yet; `make run` makes one on its first start"
        ) from None
    say(f"{ADMIN} {found}")


def serve() -> None:
    """Run the serving node alone, until Ctrl-C; `evergreen up` runs it with everything else."""
    from include.serving.node import serve as serve_node

    serve_node(current_settings())


def up(
    use_case: Annotated[
        str | None,
        typer.Option(
            "--use-case", "-u", metavar="NAME", help="Name of a use case; else repayment."
        ),
    ] = None,
    days: Annotated[
        int,
        typer.Option(
            "--days", metavar="N", min=0, help="Also backfill so many partitions before the newest."
        ),
    ] = 0,
    once: Annotated[
        bool,
        typer.Option("--once", help="Stop everything after the answer, instead of running on."),
    ] = False,
) -> None:
    """Start everything, run the newest partition through Airflow, answer a request; as `make
    run`.
    """
    from include.installation.up import run_main

    settings = current_settings()
    if use_case is not None:
        find_use_case(settings, use_case)
    raise typer.Exit(run_main(use_case=use_case, once=once, days=days))


def stop() -> None:
    """Stop what `evergreen up` has started in EVERGREEN_HOME, from another shell."""
    from include.installation.supervisor import stop as stop_all

    say(stop_all(current_settings()))
