"""Commands about use cases: usecase check, usecase apply, usecase schema, simulate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import (
    First,
    Last,
    Partition,
    Reason,
    actor,
    current_settings,
    find_use_case,
    open_records,
    wanted_keys,
)
from include.cli.output import json_option, print_json, print_line, print_table
from include.cli.panels import Suggesting
from include.cli.release_outlook import print_outlook
from include.cli.suggestions import Mistake, nearest
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.onboarding.try_data import Trial

CHECK_KEYS = ("kind", "name", "value", "rows")

usecase_app = typer.Typer(
    cls=Suggesting,
    help="Check a use case, tell the nodes of it, or print the JSON schema of use case files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@usecase_app.command()
def check(
    name_or_file: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="Name of a use case, or the path of its file."),
    ],
    data: Annotated[
        bool,
        typer.Option(
            "--data", help="Also read its data, and show what a first training would find."
        ),
    ] = False,
    as_json: Annotated[bool, json_option(CHECK_KEYS)] = False,
) -> None:
    """Check a use case file: which line is wrong, why, and what would be right.

    Says how long a release takes at the present traffic. With --data its sources are read, into a
    folder that is thrown away; of the installation only the page of the data's profile is written,
    under reports/<use case>/profile.html.
    """
    from include.onboarding import check as checking

    file = file_of(name_or_file, current_settings())
    use_case = checking.check_file(file)
    if not as_json:
        print_line(
            f"{file}: {use_case.name} is well formed: {len(use_case.sources)} source(s), "
            f"{len(use_case.feature_types)} feature(s)"
        )
        print_outlook(use_case, current_settings())
    if not data:
        if as_json:
            print_json([])
        return
    from include.onboarding import try_data

    trial = try_data.try_data(use_case, current_settings())
    page = _write_profile(use_case, trial)
    if as_json:
        print_json(_json_rows(trial, page))
    else:
        _print_trial(trial, page)
    trial.refuse()


def _print_trial(trial: Trial, page: Path | None) -> None:
    """Write what a trial found as tables, and where its page is."""
    from include.onboarding import try_data

    heads = (f"row {number}" for number in range(1, try_data.HEAD + 1))
    print_table(
        ("column", "null share", *heads),
        trial.columns,
        title=f"training frame of {trial.key}: {trial.rows} mature rows",
    )
    print_table(("what", "value"), trial.facts)
    if trial.rates:
        print_table(("decisions from", "decisions", "label rate"), trial.rates)
    if page is not None:
        print_line(f"Before a first training, look at {page}")


def _write_profile(use_case: UseCase, trial: Trial) -> Path | None:
    """Write a trial's page; what was found counts even where no page can be written."""
    from include.onboarding.profile_page import write_profile

    try:
        return write_profile(use_case, trial, current_settings().home)
    except OSError as error:
        typer.echo(f"The profile page cannot be written: {error}", err=True)
        return None


def _json_rows(trial: Trial, page: Path | None) -> Iterator[dict[str, object]]:
    """Yield what a trial found as flat objects of CHECK_KEYS; shares are numbers from 0 to 1."""
    for problem in trial.problems:
        yield _json_row("problem", "", problem)
    for finding in trial.found:
        yield _json_row(finding.level, ", ".join(finding.columns), str(finding))
    for name, value in trial.facts:
        if name != "question":
            yield _json_row("fact", name, value)
    profile = trial.profile
    if profile is not None:
        for column in profile.columns:
            yield _json_row("missing", column.name, column.missing, profile.rows)
            yield _json_row("auc", column.name, column.auc, profile.rows)
    cohorts = trial.cohorts
    if cohorts is not None:
        for name, count in zip(cohorts.periods.names, cohorts.counts, strict=True):
            rate = count.ones / count.mature if count.mature else None
            yield _json_row("label_rate", name, rate, count.mature)
    if page is not None:
        yield _json_row("page", "", str(page))


def _json_row(kind: str, name: str, value: object, rows: int | None = None) -> dict[str, object]:
    return dict(zip(CHECK_KEYS, (kind, name, value, rows), strict=True))


@usecase_app.command()
def apply(
    name_or_file: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="Name of a use case, or the path of its file."),
    ],
    reason: Reason = "",
) -> None:
    """Tell the serving nodes of a changed use case: its decision, fallback, ttls, cadence.

    They read no file; a release tells them too. The change is on the audit log, and nodes follow it
    within a second.
    """
    from include.deployment.apply import apply_use_case
    from include.onboarding import check as checking

    settings = current_settings()
    use_case = checking.check_file(file_of(name_or_file, settings))
    records = open_records(settings)
    before = records.routes.get(use_case.name).generation
    route = apply_use_case(records, use_case, actor(), reason)
    said = "is what the nodes have already" if route.generation == before else "is on record"
    print_line(f"{use_case.name}: its description {said}, generation {route.generation}")


@usecase_app.command()
def schema() -> None:
    """Print the JSON schema of use case files: every field with its type, default and meaning."""
    import json

    from include.config.use_case_schema import use_case_schema

    print_line(json.dumps(use_case_schema(), indent=2))


def simulate(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the files go: STREAM/KEY.csv."
        ),
    ],
    use_case: Annotated[
        str,
        typer.Option(
            "--use-case", "-u", metavar="NAME", help="Name of a use case with simulated sources."
        ),
    ] = "repayment",
    partition: Partition = None,
    first: First = None,
    last: Last = None,
    customers: Annotated[
        int | None,
        typer.Option(
            "--customers", metavar="N", min=1, help="How many customers; else as the use case says."
        ),
    ] = None,
    concept_shift: Annotated[
        int | None,
        typer.Option(
            "--concept-shift",
            metavar="DAY",
            min=0,
            help="Day of the history from which outcomes follow another rule.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="Seed of its random numbers; else EVERGREEN_SEED."
        ),
    ] = None,
) -> None:
    """Write the simulated portfolio of customers, loans and payments as CSV files.

    The bytes of a day depend only on the seed and the day.
    """
    from datetime import date

    from include.simulation.streams import write_days

    settings = current_settings()
    case = find_use_case(settings, use_case)
    spec = next(
        (source.simulator for source in case.sources.values() if source.simulator is not None), None
    )
    if spec is None:
        raise ConfigError(f"{case.name} has no simulated source; name one that has with --use-case")
    keys = [date.fromisoformat(key) for key in wanted_keys(case, partition, first, last)]
    written = write_days(
        output,
        keys[0],
        keys[-1],
        seed=settings.seed if seed is None else seed,
        customers=customers or spec.customers,
        start=case.history.first,
        concept_shift=spec.concept_shift if concept_shift is None else concept_shift,
        cut_off=case.cut_off,
    )
    print_line(f"wrote {len(written)} files for {len(keys)} day(s) to {output}")


def file_of(name_or_file: str, settings: Settings) -> Path:
    """Return the file of a use case that is given by its path or by its name."""
    from include.config.use_case_file import files

    path = Path(name_or_file)
    by_name = {file.stem: file for file in files(settings.usecase_dirs)}
    if path.is_file():
        return path
    if name_or_file in by_name:
        return by_name[name_or_file]
    meant = nearest(path.stem, by_name)
    if path.name == name_or_file and not path.suffix:  # a name rather than a path
        message = f"no use case {name_or_file!r} and no such file; there are {sorted(by_name)}"
        raise Mistake(message, wrong=name_or_file, meant=meant)
    if meant is not None:
        message = f"{name_or_file}: cannot be read, there is no such file"
        raise Mistake(message, wrong=name_or_file, meant=meant)
    return path
