"""Commands that touch what is live: backfill, rollback, release, serve, up, stop, password."""

from __future__ import annotations

from typing import Annotated

import typer

from include.cli.context import UseCaseArgument, Yes, actor, ask, current_settings, find_use_case, open_records, say, show
from include.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(backfill)
    app.command()(rollback)
    app.command()(release)
    app.command()(password)
    app.command()(serve)
    app.command()(up)
    app.command("run-all", hidden=True)(up)
    app.command()(stop)


def backfill(
    use_case: UseCaseArgument,
    first: Annotated[str, typer.Option("--from", metavar="KEY", help="First partition.")],
    last: Annotated[str, typer.Option("--to", metavar="KEY", help="Last partition, included.")],
    backwards: Annotated[bool, typer.Option("--backwards", help="Newest first.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that Airflow has run already.")] = False,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Runs of ingest_data at once.")] = 10,
    yes: Yes = False,
) -> None:
    """Recompute and judge partitions through Airflow, one run each; live state stays untouched."""
    from include.clock import utc_now
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline import history
    from include.point_in_time.partitions import between, earlier, newest_complete

    settings, now = current_settings(), utc_now()
    case = find_use_case(settings, use_case)
    keys = between(case, first, last)
    newest = newest_complete(case, now)
    if not keys or newest is None or keys[-1] > newest:
        raise ConfigError(
            f"--from {first} --to {last}: give a range that ends at the newest complete partition, {newest}, or before"
        )
    records = open_records(settings)
    known = {row.key: row for row in records.partitions(case.name)}
    show(
        ("partition", "recorded as"), [(key, f"{known[key].mode}/{known[key].target}" if key in known else "new") for key in keys]
    )
    before = earlier(case, keys[0])
    load = history.unloaded(case, records, keys[0], before, now) if before else None
    if load:
        say(f"their training looks back on {load['features'][0]} to {before}, which is loaded first, through load_history")
    dag = f"{case.name}__ingest_data"
    with AirflowApi(settings) as api:
        if api.paused(dag):
            raise ConfigError(f"{dag} is paused, so a backfill would not run; unpause it in Airflow's UI first")
        ask(f"Backfill these {len(keys)} partition(s) of {case.name}?", yes=yes)
        if load:
            api.trigger(f"{case.name}__load_history", conf={"first": load["materialize_features"][0], "last": before})
            api.pause(f"{case.name}__load_history", False)
        number = api.backfill(
            dag, keys[0], keys[-1], max_active_runs=at_once, backwards=backwards, reprocess="completed" if again else "none"
        )
    say(f"backfill {number} of {len(keys)} partition(s) is on its way; watch `evergreen status {case.name}`")


def rollback(
    use_case: UseCaseArgument,
    lift: Annotated[str | None, typer.Option("--release", metavar="MODEL", help="Lift the hold on a model instead.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes on the audit record.")] = "",
    challenger: Annotated[bool, typer.Option("--challenger", help="Drop the challenger; the champion stays.")] = False,
    yes: Yes = False,
) -> None:
    """Go back to the model that served before, and hold the one taken back; --release lifts such a hold."""
    from include.deployment import rollout

    if lift is not None:
        release(use_case, lift, reason=reason, yes=yes)
        return
    settings = current_settings()
    case = find_use_case(settings, use_case)
    route = open_records(settings).route(case.name)
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
    say(f"{case.name}: champion is version {changed.champion}, generation {changed.generation}; held: {', '.join(changed.held)}")


def release(
    use_case: UseCaseArgument,
    model: Annotated[str, typer.Argument(help="Version or digest (or its beginning) of a model on hold.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; goes on the audit record.")] = "",
    yes: Yes = False,
) -> None:
    """Lift the hold that a rollback put on a model's digest."""
    from include.deployment import rollout

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    held = records.route(case.name).held
    known = [one for one in records.models(case.name) if one.model_digest in held]
    named = [one for one in known if str(one.version) == model or one.model_digest.startswith((model, f"sha256:{model}"))]
    if len({one.model_digest for one in named}) != 1:
        shown = ", ".join(f"version {one.version} ({one.model_digest[:19]})" for one in known) or "nothing"
        raise ConfigError(f"{model!r} names no single model on hold of {case.name}; on hold is {shown}")
    ask(f"Let version {named[0].version} ({named[0].model_digest[:19]}) be promoted again?", yes=yes)
    rollout.release_hold(settings, case.name, named[0].version, actor(), reason)
    say(f"{case.name}: version {named[0].version} is no longer on hold")


def password() -> None:
    """Show Airflow's generated password."""
    import json

    from include.orchestration.airflow_api import ADMIN, password_file

    path = password_file(current_settings())
    try:
        found = json.loads(path.read_text())[ADMIN]
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"{path} holds no password yet; `make run` makes one on its first start") from None
    say(f"{ADMIN} {found}")


def serve() -> None:
    """Run the serving node until Ctrl-C."""
    from include.serving.node import serve as serve_node

    serve_node(current_settings())


def up(
    use_case: Annotated[str | None, typer.Option("--use-case", "-u", help="The use case; else repayment.")] = None,
    days: Annotated[int, typer.Option("--days", min=0, help="Backfill so many partitions before the newest.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Stop everything after the answer.")] = False,
) -> None:
    """Start everything, run the newest partition through Airflow, answer a request; what `make run` does."""
    from include.installation.up import run_main

    current_settings()
    raise typer.Exit(run_main(use_case=use_case, once=once, days=days))


def stop() -> None:
    """Stop the installation of this home folder, from another shell."""
    from include.installation.supervisor import stop as stop_all

    say(stop_all(current_settings()))
