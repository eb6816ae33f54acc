"""Commands about rows that failed validation: quarantine list, quarantine redrive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from include.cli.context import (
    Limit,
    Partition,
    UseCaseArgument,
    Yes,
    actor,
    checked_key,
    current_settings,
    find_use_case,
    open_records,
)
from include.cli.output import confirm, json_option, print_json, print_line, print_table
from include.cli.panels import Suggesting
from include.errors import ConfigError

SourceName = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="Only rows of this source.")
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--rule", metavar="RULE", help="Only rows that broke this rule, such as 'age: below_min'."
    ),
]
LIST_KEYS = ("partition", "source", "file", "row", "rule", "redriven_into", "values")

quarantine_app = typer.Typer(
    cls=Suggesting,
    help="List the rows that failed validation, or give them to a later partition.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@quarantine_app.command("list")
def quarantine_list(
    use_case: UseCaseArgument,
    partition: Partition = None,
    source: SourceName = None,
    rule: Rule = None,
    limit: Limit = 50,
    to: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Write all of them to this CSV, to correct and redrive."
        ),
    ] = None,
    json: Annotated[bool, json_option(LIST_KEYS)] = False,
) -> None:
    """List the rows that failed validation with the rule that each broke, or write them to a CSV.

    `evergreen quarantine redrive --from FILE` takes the corrected CSV. With --json the values of a
    row are JSON text; a list has the first 200 characters of each value, a CSV has all.
    """
    from include.validation import quarantine

    if to is not None and json:
        raise ConfigError("give either --csv FILE or --json")
    settings = current_settings()
    case, records = find_use_case(settings, use_case), open_records(settings)
    key = None if partition is None else checked_key(case, partition)
    if to is not None:
        rows = quarantine.find_rows(
            settings, records, case, partition=key, source=source, rule=rule
        )
        written = quarantine.export_csv(rows, case, to)
        print_line(
            f"{written} row(s) written to {to}; correct them there, and delete those that shall "
            "stay in quarantine"
        )
        return
    rows = quarantine.find_rows(
        settings, records, case, partition=key, source=source, rule=rule, limit=limit
    )
    if json:
        print_json(
            dict(zip(LIST_KEYS, (*row.place, row.rule, row.into, row.values), strict=True))
            for row in rows
        )
        return
    columns, cells = quarantine.as_table(rows, limit)
    print_table(columns, cells)
    counts = quarantine.count_rules(settings, case, partition=key, source=source)
    total = sum(counts.values()) if rule is None else counts.get(rule, 0)
    rest = f", the first {len(cells)} shown" if total > len(cells) else ""
    print_line(f"{total} row(s) in quarantine{rest}")


@quarantine_app.command("redrive")
def quarantine_redrive(
    use_case: UseCaseArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why you do it; kept in the audit log.")
    ],
    partition: Partition = None,
    source: SourceName = None,
    rule: Rule = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="COLUMN=VALUE", help="New value for all chosen rows; may be repeated."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="CSV of `quarantine list --csv`, corrected."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Give rows that failed validation, corrected or not, to the next partition to be ingested.

    Say which rows by --partition (and --source, --rule), or by a corrected CSV. Shows them, then
    asks.
    """
    from include.clock import utc_now
    from include.validation import redrive

    if partition is None and file is None:
        raise ConfigError("say which rows: --partition KEY (with --source, --rule), or --from FILE")
    pairs = [text.partition("=") for text in changes or []]
    wrong = [name for name, sign, _ in pairs if not (name and sign)]
    if wrong:
        raise ConfigError(f"--set {wrong[0]!r}: write COLUMN=VALUE")
    if not reason.strip():
        raise ConfigError("--reason needs a text; it goes into the audit log")
    settings = current_settings()
    case, records = find_use_case(settings, use_case), open_records(settings)
    plan = redrive.plan_redrive(
        settings,
        records,
        case,
        partition=None if partition is None else checked_key(case, partition),
        source=source,
        rule=rule,
        changes={name: value for name, _, value in pairs},
        file=file,
    )
    print_table(("partition", "source", "rows"), plan.counts())
    before = f"; {plan.before} were redriven before and stay out" if plan.before else ""
    print_line(
        f"{len(plan.rows)} row(s), {plan.corrected} of them corrected, pass the contract "
        f"now{before}"
    )
    confirm(f"Give them to {plan.into}, as arrived at the start of its interval?", yes=yes)
    redrive.record_redrive(
        settings, records, case, plan, reason=reason, actor=actor(), at=utc_now()
    )
    print_line(f"recorded; the next ingestion of {plan.into} takes them in")
