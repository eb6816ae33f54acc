"""The command `gc`: remove what no record needs any more, or show what that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.context import actor, current_settings, find_use_case, open_records
from include.cli.output import json_option, print_json, print_line, print_table
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.config.use_case import UseCase
    from include.retention.collect_garbage import Collected

KEYS = ("use_case", "kind", "name", "bytes", "reason", "removed")
SHOWN = 40  # pieces that the table lists; --json has all
AIRFLOW = "airflow"  # the kind of what is all use cases'


def gc(
    use_case: Annotated[
        str | None, typer.Argument(metavar="[USE_CASE]", help="Only this use case; else all.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
    json: Annotated[bool, json_option(KEYS)] = False,
) -> None:
    """Remove what no record needs any more; Airflow does so every night.

    Kept are the files of models that serve, served before, may serve next or are on hold, of those
    that these were judged against, and of the newest `retention.models`; every version of a lake
    table that a recorded manifest names; and whatever is younger than 48 hours. Models that lose
    their files stay on record; `evergreen run train_model` for the partition makes them again.
    Predictions older than `log.retention` go, and what Airflow's database has kept for longer than
    EVERGREEN_AIRFLOW_DAYS.
    A use case whose file cannot be read is left alone, and so is one that has no file any more.
    """
    from include.clock import utc_now
    from include.installation.airflow_history import trim
    from include.retention import collect_garbage

    settings = current_settings()
    records = open_records(settings)
    now, rows = utc_now(), list[dict[str, Any]]()
    every, wrong = (
        ([find_use_case(settings, use_case)], list[str]()) if use_case else _all_use_cases()
    )
    for case in every:
        done = collect_garbage.collect(
            settings, records, case, at=now, actor=actor(), dry_run=dry_run
        )
        rows += _rows(done)
        if not json:
            _show(done, dry_run)
    if use_case is None:
        for table, count in trim(settings, records, at=now, actor=actor(), dry_run=dry_run).items():
            reason = f"older than {settings.airflow_days} days"
            name = f"{count} rows of {table}"
            values = (None, AIRFLOW, name, None, reason, not dry_run)
            rows.append(dict(zip(KEYS, values, strict=True)))
            if not json:
                print_line(f"airflow.db: {name}, {reason}")
    if json:
        print_json(rows)
    elif not rows:
        print_line("there is nothing to remove")
    if wrong:
        raise ConfigError(f"left alone, since their files are wrong: {'; '.join(wrong)}")


def _all_use_cases() -> tuple[list[UseCase], list[str]]:
    """Return the use cases that can be read, and what is wrong with the others."""
    from include.config.use_case_file import files, find

    folders = current_settings().usecase_dirs
    found: list[UseCase] = []
    wrong: list[str] = []
    for name in sorted({path.stem for path in files(folders)}):
        try:
            found.append(find(name, folders))
        except ConfigError as error:
            wrong.append(str(error))
    return found, wrong


def _rows(done: Collected) -> list[dict[str, Any]]:
    return [
        dict(
            zip(
                KEYS,
                (done.use_case, each.kind, each.name, each.bytes, each.why, each in done.removed),
                strict=True,
            )
        )
        for each in done.found
    ]


def _show(done: Collected, dry_run: bool) -> None:
    shown = done.found if dry_run else done.removed
    if shown:
        print_table(
            ("kind", "what", "MB", "why"),
            [(each.kind, each.name, f"{each.bytes / 1e6:.1f}", each.why) for each in shown[:SHOWN]],
        )
    if len(shown) > SHOWN:
        print_line(f"... and {len(shown) - SHOWN} more; --json has all")
    size = sum(each.bytes for each in shown) / 1e6
    verb = "would be removed" if dry_run else "were removed"
    print_line(
        f"{done.use_case}: pieces that {verb}: {len(shown)} ({size:.1f} MB); models that lose "
        f"their files: {len(done.versions)}, that keep them: {len(done.kept)}"
    )
    for reason in done.put_off:
        print_line(f"{done.use_case}: left for the next run: {reason}")
