"""`evergreen ...`: everything that a DAG does, from a shell, and what only people do.

Commands import what they need when they run, so `evergreen --help` is quick. Exit codes are those
of include/errors.py; an argument that resembles a right one is told with the command as it was
meant.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include import errors
from include.cli import installation
from include.cli import records as cli_records
from include.cli import use_case as cli_usecase
from include.cli.context import (
    First,
    Last,
    Partition,
    UseCaseArgument,
    UseCaseOption,
    actor,
    checked_key,
    current_settings,
    find_use_case,
    newest_for,
    open_records,
    say,
    show,
    wanted_keys,
    without_secrets,
)
from include.cli.models import models
from include.cli.panels import Panels
from include.cli.suggestions import Mistake, meant_by, nearest, stage_words
from include.config.no_telemetry import QUIET
from include.errors import ConfigError, EvergreenError, MissingPartition, SourceError
from include.pipeline.flow import DATA_STAGES, STAGES, UP_TO_JUDGED

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.pipeline.execution import Report
    from include.records.records import Mode, Records, Target

log = logging.getLogger(__name__)

UNEXPECTED = 70
TOLD = 20  # runs of which more is said than a line of the table
COLUMNS = ("partition", "stage", "state", "seconds", "digest", "reason")

app = typer.Typer(
    name="evergreen",
    cls=Panels,
    help="Keeps tabular models fresh: as-of correct, fail-closed pipelines.",
    epilog="`evergreen COMMAND --help` tells what a command does, and its options.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    suggest_commands=False,  # Panels does, with the arguments that were given
)
for command in (
    models,
    cli_records.status,
    cli_records.heal,
    cli_records.score,
    cli_records.reset,
    cli_usecase.new,
    cli_usecase.simulate,
    installation.backfill,
    installation.rollback,
    installation.release,
    installation.password,
    installation.serve,
    installation.up,
    installation.stop,
):
    app.command()(command)
app.command("run-all", hidden=True)(installation.up)
app.add_typer(cli_usecase.usecase_app, name="usecase")
app.add_typer(cli_records.audit_app, name="audit")
app.add_typer(cli_records.quarantine_app, name="quarantine")


@app.callback()
def configure(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Log each step on standard error; goes before the command."
        ),
    ] = False,
) -> None:
    """Keep tabular models fresh."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("include").setLevel(logging.INFO if verbose else logging.WARNING)

    def ours(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith("include")

    for handler in logging.getLogger().handlers:
        handler.addFilter(ours)  # libraries set levels of their own when they are imported
    if not verbose:
        warnings.simplefilter("ignore")


@app.command()
def run(
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE", help=f"One of {', '.join(STAGES)}; or `all` for each of them in turn."
        ),
    ],
    use_case: UseCaseOption,
    partition: Partition = None,
    first: First = None,
    last: Last = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Compute again and compare with what is on record; change nothing."
        ),
    ] = False,
    restate: Annotated[
        str | None,
        typer.Option(
            "--restate",
            metavar="REASON",
            help="Accept rows that have changed at their source; REASON goes into the audit log.",
        ),
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="With --restate: only this source; a static one must be named.",
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="backfill|live",
            help="backfill: judge, release nothing. live: may be released; only for the newest "
            "complete partition.",
        ),
    ] = "backfill",
    live: Annotated[bool, typer.Option("--live", help="The same as --mode live.")] = False,
) -> None:
    """Run one stage, or all of them, for a partition or a range, without Airflow.

    Give --partition, or --from and --to. What is unchanged is answered from the record.
    """
    if stage not in (*STAGES, "all"):
        message = f"{stage!r} is no stage; stages are {', '.join(STAGES)}, or `all`"
        raise Mistake(message, wrong=stage, meant=meant_by(stage, stage_words() | {"all": "all"}))
    if restate is not None and not restate.strip():
        raise ConfigError("--restate needs a reason; it goes on the audit record")
    settings = current_settings()
    case = find_use_case(settings, use_case)
    for name in sources or []:
        if name not in case.sources:
            message = (
                f"{case.name} has no source {name!r}; its sources are {', '.join(case.sources)}"
            )
            raise Mistake(message, wrong=name, meant=nearest(name, case.sources))
    if sources and restate is None:
        raise ConfigError("--source says which sources to restate; give --restate REASON with it")
    keys = wanted_keys(case, partition, first, last)
    records = open_records(settings)
    _record(records, case, keys, mode="live" if live else mode)
    options: dict[str, Any] = {"restate": restate.strip()} if restate is not None else {}
    if sources:
        options["sources"] = sources
    reports: list[Report] = []
    for name in STAGES if stage == "all" else (stage,):
        going = [key for key in keys if _goes_on(name, reports, key)]
        try:
            reports += _run_stage(
                name,
                case,
                going,
                settings,
                force=force,
                options=options if name == "ingest_data" else {},
            )
        except EvergreenError:
            _show(reports)  # what was found before is worth seeing, whatever this stage refuses
            raise
    _tell(reports)


@app.command("load-history")
def load_history(use_case: UseCaseArgument, first: First = None, last: Last = None) -> None:
    """Ingest and validate a range of partitions and compute its features, in one pass.

    Without --from and --to: what a training on the newest partition looks back on. Earlier
    partitions that the range itself looks back on are loaded too. Nothing is trained.
    """
    from include.clock import utc_now
    from include.pipeline import history

    settings = current_settings()
    case = find_use_case(settings, use_case)
    newest_for(case, [checked_key(case, key) for key in (first, last) if key is not None])
    plan = history.plan_load(case, first, last, utc_now())
    open_records(settings)
    done, failed = [], 0
    for stage, keys in plan.items():
        found = history.load_partitions(
            stage, settings, case.name, keys, owner=f"load-history@{actor()}", actor=actor()
        )
        counts = {
            name: count
            for name, count in found.items()
            if name not in ("stage", "first", "last", "reasons")
        }
        done.append(
            (
                stage,
                keys[0],
                keys[-1],
                ", ".join(f"{count} {name}" for name, count in counts.items()),
            )
        )
        failed += sum(
            count for name, count in counts.items() if name not in ("done", "reused", "skipped")
        )
        for key, reason in found.get("reasons", {}).items():
            say(f"{stage} {key}: {reason}")
    show(("stage", "first", "last", "partitions"), done)
    if failed:
        raise EvergreenError(
            f"{failed} partition(s) did not pass; see the reasons above, and `evergreen status "
            f"{case.name}`"
        )


@app.command()
def version() -> None:
    """Print the version of Evergreen."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        say(f"evergreen {version('evergreen')}")
    except PackageNotFoundError:
        say("evergreen (not installed; runs from its source folder)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an EvergreenError ends as one clear line and its exit code.

    No library reports its use.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="evergreen")
    except EvergreenError as error:
        told = (
            error.told(sys.argv[1:] if arguments is None else arguments)
            if isinstance(error, Mistake)
            else str(error)
        )
        sys.stderr.write(f"evergreen: {without_secrets(told)}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no bare traceback
        where = (
            traceback.format_exc()
            if log.isEnabledFor(logging.INFO)
            else "run it with `evergreen -v ...` to see where\n"
        )
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        sys.stderr.write(without_secrets(f"evergreen: unexpected {reason}; {where}"))
        sys.exit(UNEXPECTED)


def _record(records: Records, case: UseCase, keys: Sequence[str], *, mode: str) -> None:
    """Record mode and target of the partitions before anything runs for them."""
    from include.clock import utc_now

    newest = newest_for(case, keys)
    if mode not in ("backfill", "live"):
        raise ConfigError(f"--mode {mode!r}: give backfill or live")
    if mode == "live" and keys != [newest]:
        raise ConfigError(
            f"only the newest complete partition of {case.name}, {newest}, can be live; give "
            f"--partition {newest}"
        )
    meant: tuple[Mode, Target] = ("live", "deployed") if mode == "live" else ("backfill", "judged")
    for key in keys:
        records.partitions.raise_to(
            case.name, key, mode=meant[0], target=meant[1], actor=actor(), at=utc_now()
        )


def _run_stage(
    name: str,
    case: UseCase,
    keys: Sequence[str],
    settings: Settings,
    *,
    force: bool = False,
    options: dict[str, Any] | None = None,
) -> list[Report]:
    """Run a stage for keys: a data stage for many in one scan, the others one by one; one key's
    refusal stops only that key.
    """
    from include.pipeline import ranges, runner
    from include.pipeline.execution import Report

    who = actor()
    if len(keys) == 1:
        return [
            runner.run(
                name, case.name, keys[0], settings=settings, actor=who, force=force, options=options
            )
        ]
    if name in DATA_STAGES and not force:
        return list(
            ranges.run_range(name, case.name, keys, settings=settings, actor=who, options=options)
        )
    reports = []
    for key in keys:
        try:
            reports.append(
                runner.run(
                    name, case.name, key, settings=settings, actor=who, force=force, options=options
                )
            )
        except EvergreenError as error:
            reports.append(
                Report(
                    stage=name,
                    use_case=case.name,
                    key=key,
                    state="failed",
                    reason=str(error),
                    outputs={"error": type(error).__name__},
                )
            )
    return reports


def _goes_on(stage: str, reports: Sequence[Report], key: str) -> bool:
    """Tell whether the chain goes on for a key: no stage before has stopped it; drift follows
    the judgement.
    """
    before = [
        report
        for report in reports
        if report.key == key and (stage != "check_drift" or report.stage in UP_TO_JUDGED)
    ]
    return all(report.state == "done" for report in before)


def _show(reports: Sequence[Report]) -> None:
    """Show what every stage came to, and of the last ones what a person wants to know of it."""
    from include.cli.summary import told

    shown = [
        (r.key, r.stage, _state(r), f"{r.seconds:.2f}", r.digest[7:19], r.reason) for r in reports
    ]
    if len(shown) > 60:
        bad = [row for row, report in zip(shown, reports, strict=True) if report.state != "done"]
        shown = shown[:5] + bad + shown[-5:]
    if shown:
        show(COLUMNS, shown)
    for report in reports[-TOLD:]:
        for line in told(report):
            say(line)


def _tell(reports: Sequence[Report]) -> None:
    """Show the reports; a failed, blocked or unreadable partition makes the command fail."""
    _show(reports)
    stopped = [report for report in reports if report.state in ("failed", "blocked", "unreadable")]
    if stopped:
        names = ", ".join(f"{report.stage} {report.key}" for report in stopped[:5])
        more = f" and {len(stopped) - 5} more" if len(stopped) > 5 else ""
        worst: type[EvergreenError] = (
            SourceError if stopped[0].state == "blocked" else MissingPartition
        )
        worst = getattr(errors, str(stopped[0].outputs.get("error")), worst)
        raise worst(
            f"{len(stopped)} of {len(reports)} did not pass: {names}{more}; see the reasons above"
        )


def _state(report: Report) -> str:
    return f"{report.state} (reused)" if report.reused else report.state
