"""Commands that run stages: run, load-history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include import errors
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
    wanted_keys,
)
from include.cli.output import print_line, print_table
from include.cli.suggestions import Mistake, meant_by, nearest, stage_words
from include.errors import ConfigError, EvergreenError, MissingPartition, SourceError
from include.pipeline.flow import DATA_STAGES, STAGES, UP_TO_JUDGED

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.pipeline.execution import Report
    from include.records.records import Mode, Records, Target

COLUMNS = ("partition", "stage", "state", "seconds", "digest", "reason")
MOST_ROWS = 60  # of the table of runs; of more, the first and last few and what went wrong
DESCRIBED = 20  # runs of which more is said than a row of the table


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
        raise ConfigError("--restate needs a reason; it goes into the audit log")
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
    _record_target(open_records(settings), case, keys, mode="live" if live else mode)
    ingestion_options: dict[str, Any] = {}
    if restate is not None:
        ingestion_options["restate"] = restate.strip()
    if sources:
        ingestion_options["sources"] = sources
    reports: list[Report] = []
    for name in STAGES if stage == "all" else (stage,):
        try:
            reports += _run_stage(
                name,
                case,
                [key for key in keys if _goes_on(name, reports, key)],
                settings,
                force=force,
                options=ingestion_options if name == "ingest_data" else {},
            )
        except EvergreenError:
            _print_reports(reports)  # worth seeing, whatever this stage refuses
            raise
    _print_reports(reports)
    _raise_worst(reports)


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
    steps = history.plan_load(case, first, last, utc_now())
    open_records(settings)
    rows, failed = [], 0
    for stage, keys in steps.items():
        summary = history.load_partitions(
            stage, settings, case.name, keys, owner=f"load-history@{actor()}", actor=actor()
        )
        counts = {
            state: count
            for state, count in summary.items()
            if state not in ("stage", "first", "last", "reasons")
        }
        shown = ", ".join(f"{count} {state}" for state, count in counts.items())
        rows.append((stage, keys[0], keys[-1], shown))
        failed += sum(
            count for state, count in counts.items() if state not in ("done", "reused", "skipped")
        )
        for key, reason in summary.get("reasons", {}).items():
            print_line(f"{stage} {key}: {reason}")
    print_table(("stage", "first", "last", "partitions"), rows)
    if failed:
        raise EvergreenError(
            f"{failed} partition(s) did not pass; see the reasons above, and `evergreen status "
            f"{case.name}`"
        )


def _record_target(records: Records, case: UseCase, keys: Sequence[str], *, mode: str) -> None:
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
    stage: str,
    case: UseCase,
    keys: Sequence[str],
    settings: Settings,
    *,
    force: bool,
    options: dict[str, Any],
) -> list[Report]:
    """Run a stage for keys: a data stage for many in one scan, another for one key after another.

    Of many keys, the refusal of one stops only that one.
    """
    from include.pipeline import ranges, runner
    from include.pipeline.execution import Report

    if len(keys) > 1 and stage in DATA_STAGES and not force:
        return list(
            ranges.run_range(
                stage, case.name, keys, settings=settings, actor=actor(), options=options
            )
        )
    reports = []
    for key in keys:
        try:
            report = runner.run(
                stage,
                case.name,
                key,
                settings=settings,
                actor=actor(),
                force=force,
                options=options,
            )
        except EvergreenError as error:
            if len(keys) == 1:
                raise
            outputs = {"error": type(error).__name__}
            report = Report(
                stage=stage,
                use_case=case.name,
                key=key,
                state="failed",
                reason=str(error),
                outputs=outputs,
            )
        reports.append(report)
    return reports


def _goes_on(stage: str, reports: Sequence[Report], key: str) -> bool:
    """Tell whether a stage runs for a key: no stage that it needs has stopped before.

    The drift check needs the judgement only: it starts beside the packaging, not after it.
    """
    before = [
        report
        for report in reports
        if report.key == key and (stage != "check_drift" or report.stage in UP_TO_JUDGED)
    ]
    return all(report.state == "done" for report in before)


def _print_reports(reports: Sequence[Report]) -> None:
    """Print what every run came to, and of the last ones what a person wants to know of it."""
    from include.cli.summary import describe_run

    rows = [_row(report) for report in reports]
    if len(rows) > MOST_ROWS:
        bad = [row for row, report in zip(rows, reports, strict=True) if report.state != "done"]
        rows = rows[:5] + bad + rows[-5:]
    if rows:
        print_table(COLUMNS, rows)
    for report in reports[-DESCRIBED:]:
        for line in describe_run(report):
            print_line(line)


def _raise_worst(reports: Sequence[Report]) -> None:
    """Fail where a run did: with the class, and so the exit code, of the first one's error."""
    stopped = [report for report in reports if report.state in ("failed", "blocked", "unreadable")]
    if not stopped:
        return
    names = ", ".join(f"{report.stage} {report.key}" for report in stopped[:5])
    more = f" and {len(stopped) - 5} more" if len(stopped) > 5 else ""
    worst: type[EvergreenError] = SourceError if stopped[0].state == "blocked" else MissingPartition
    worst = getattr(errors, str(stopped[0].outputs.get("error")), worst)
    raise worst(
        f"{len(stopped)} of {len(reports)} did not pass: {names}{more}; see the reasons above"
    )


def _row(report: Report) -> tuple[str, ...]:
    """Return a run's row of `COLUMNS`; of the digest the first twelve digits, after `sha256:`."""
    state = f"{report.state} (reused)" if report.reused else report.state
    seconds, digest = f"{report.seconds:.2f}", report.digest[7:19]
    return report.key, report.stage, state, seconds, digest, report.reason
