"""The commands backfill and score: models of past partitions through Airflow, scores of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from include.cli.context import (
    KEY_HELP,
    UseCaseArgument,
    Yes,
    actor,
    checked_key,
    current_settings,
    find_use_case,
    keys_between,
    newest_for,
    open_records,
)
from include.cli.output import confirm, print_line, print_table
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

    settings = current_settings()
    case = find_use_case(settings, use_case)
    keys = keys_between(case, first, last)
    newest_for(case, keys[-1:])
    records = open_records(settings)
    recorded = {row.key: f"{row.mode}/{row.target}" for row in records.partitions.of(case.name)}
    print_table(("partition", "recorded as"), [(key, recorded.get(key, "new")) for key in keys])
    before = earlier(case, keys[0])
    steps = history.plan_missing(case, records, keys[0], before, utc_now()) if before else None
    if steps:
        print_line(
            f"their training looks back on {steps['materialize_features'][0]} to {before}, which "
            "is loaded first, through load_history"
        )
    dag = f"{case.name}__ingest_data"
    with AirflowApi(settings) as api:
        if api.paused(dag):
            raise ConfigError(
                f"{dag} is paused, so a backfill would not run; unpause it in Airflow's UI first"
            )
        confirm(f"Backfill these {len(keys)} partition(s) of {case.name}?", yes=yes)
        if steps:
            loading = f"{case.name}__load_history"
            api.trigger(loading, conf={"first": steps["materialize_features"][0], "last": before})
            api.pause(loading, False)
        number = api.backfill(
            dag,
            keys[0],
            keys[-1],
            max_active_runs=at_once,
            backwards=backwards,
            reprocess="completed" if again else "none",
        )
    print_line(
        f"backfill {number} of {len(keys)} partition(s) is on its way; watch `evergreen status "
        f"{case.name}`"
    )


def score(
    use_case: UseCaseArgument,
    partition: Annotated[str, typer.Option("--partition", "-p", metavar="KEY", help=KEY_HELP)],
    model: Annotated[
        int | None,
        typer.Option(
            "--version",
            metavar="N",
            help="Version of the model that scores; else that of before, else the champion "
            "(of a backfill, that of then).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="CSV to write; else one in the reports folder."
        ),
    ] = None,
) -> None:
    """Score every entity that is alive as of the end of a partition, into the lake and as CSV.

    Alive is who has a feature that has not expired.
    """
    from include.scoring import score_entities

    settings = current_settings()
    case = find_use_case(settings, use_case)
    scores = score_entities.score(
        case,
        checked_key(case, partition),
        settings=settings,
        records=open_records(settings),
        version=model,
        output=output,
        actor=actor(),
    )
    print_line(
        f"{scores.rows} entities scored by version {scores.version} as of {scores.as_of}: "
        f"{scores.path}"
    )
