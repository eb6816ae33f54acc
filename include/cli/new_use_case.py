"""The command `new`: drafts a use case from a table, shows it, asks what only a person knows."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import current_settings
from include.cli.output import print_line, print_table
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.onboarding.draft import Draft


def new(
    sources: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="FILE|URL",
            help="A table with its outcome as a column: a file, a folder of files, or "
            "postgresql://user@host/db/schema.table; further tables, joined by their values, by "
            "further --from.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the use case; else the file's.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--entity", "--key", metavar="COLUMN", help="Column that says whom a row is about."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="COLUMN", help="Column that says when the row happened."),
    ] = None,
    snapshot: Annotated[
        datetime | None,
        typer.Option(
            "--snapshot",
            metavar="DATE",
            formats=["%Y-%m-%d"],
            help="Day for which a table without a time stands, such as a survey.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", help="Column of the outcome, with two values."),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive",
            metavar="VALUES",
            help="Values of the outcome that count as 1, with commas between; all others are 0.",
        ),
    ] = None,
    known: Annotated[
        str | None,
        typer.Option(
            "--known", metavar="COLUMN|LAG", help="When a row is known: a column, or `event + 3d`."
        ),
    ] = None,
    outcome_known: Annotated[
        str | None,
        typer.Option(
            "--outcome-known",
            metavar="COLUMN|LAG",
            help="When the outcome is known: a column, or `event + 30d`.",
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            "--within",
            metavar="TIME|ever",
            help="How long an outcome counts after its decision, such as 90d; what comes later "
            "is a 0.",
        ),
    ] = None,
    written_later: Annotated[
        str | None,
        typer.Option(
            "--written-later",
            metavar="COLUMNS",
            help="Columns that are written after the decision, with commas between; or none.",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option("--sheet", metavar="NAME", help="Sheet of a workbook; else its first."),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", help="File in a zip archive of several."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; - prints the draft."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take the guesses, and ask nothing.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print what was decided as one JSON object; asks nothing."),
    ] = False,
) -> None:
    """Draft a use case file from a table.

    Key, times, label and types are guessed, and each guess says so. What only a person knows is
    asked in a terminal; elsewhere it stands as `# ASK` in the file. A second `new` keeps answers
    and what you changed. Read the draft, then try it: `evergreen usecase check --data FILE`.
    """
    from include.cli.draft_questions import ask_open_questions, draft_asking
    from include.cli.draft_target import Target
    from include.onboarding.answers import Answers
    from include.onboarding.database import is_address, parse_address, read_database
    from include.onboarding.profile import Table
    from include.onboarding.questions import checked_within, split_headers

    settings = current_settings()
    if time is not None and snapshot is not None:
        raise ConfigError("--time and --snapshot exclude each other; give one of them")
    answers = Answers(
        key=key,
        time=time,
        label=label,
        positive=None if positive is None else split_headers(positive),
        snapshot=snapshot.date() if snapshot else None,
        known=known,
        outcome=outcome_known,
        within=None if within is None else checked_within(within),
        written_later=None if written_later is None else split_headers(written_later),
        guesses=True if yes else None,
    )
    prints = output is not None and str(output) == "-"
    addresses = [parse_address(source) for source in sources if is_address(source)]
    files = [Path(source) for source in sources if not is_address(source)]
    target = Target(
        files, addresses[0].table[-1] if not files else "", name, output, prints, settings
    )
    old = None if prints else target.read()
    tables = [
        *(Table(file, sheet=sheet, member=member) for file in files),
        *map(read_database, addresses),
    ]
    if old is not None:
        answers = answers.with_others(target.answers_in(old))
    asks = not (yes or prints or as_json) and sys.stdin.isatty()
    drafted = draft_asking(target, tables, answers) if asks else target.draft(tables, answers)
    if prints:
        print_line(drafted.text.rstrip("\n"))
        return
    if not as_json:
        _show(drafted)
        if asks:
            guessed, drafted = drafted, ask_open_questions(target, tables, drafted)
            if drafted.decisions != guessed.decisions:
                _show_decisions(drafted)
    target.write(drafted, tables, old)
    if as_json:
        print_line(json.dumps({"file": str(target.path), **drafted.as_json()}, indent=2))
        return
    path = target.path
    for address in addresses:
        print_line(
            f"Its source reads the database by a variable; give it the URL, with the password:\n"
            f"  export {address.variable}={quote(address.url)}"
        )
    print_line(
        f"Wrote {path}. Read its guesses, then run:\n  evergreen usecase check --data "
        f"{quote(str(path))}\n  evergreen try {quote(str(path))}"
    )
    if path.parent.resolve() not in settings.usecase_dirs:
        # A folder's name may hold blanks and brackets.
        folders = quote(f"{settings.usecases}:{path.parent.resolve()}")
        print_line(f"Then let Evergreen find it:\n  export EVERGREEN_USECASES={folders}")


def _show(drafted: Draft) -> None:
    """Print what was decided, column by column, and what it comes to."""
    from include.onboarding.outcome_tables import shown_match
    from include.onboarding.overview import HEADS

    table = drafted.table
    broken = f", and {table.broken} lines that could not be read as one" if table.broken else ""
    print_table(
        HEADS,
        [view.as_row() for view in drafted.views],
        title=f"{table.path.name}: {table.rows} rows{broken}",
    )
    if drafted.joined or drafted.apart:
        print_table(
            ("joined", "by", "its values that are found", "values it has", "features"),
            [
                *([] if drafted.apart is None else [shown_match(drafted.apart)]),
                *(
                    (
                        each.name,
                        f"{each.match.there.header} = {each.match.here.header}",
                        f"{each.match.found_there:.1%}",
                        f"{each.match.found_here:.1%}",
                        len(each.features),
                    )
                    for each in drafted.joined
                ),
            ],
        )
    _show_decisions(drafted)


def _show_decisions(drafted: Draft) -> None:
    """Print how many decisions there are, and how many of them have the outcome."""
    from include.onboarding.draft_yaml import one_of

    count, rate = drafted.decisions
    print_line(
        f"{count} decisions; {rate:.1%} of those with an outcome have "
        f"{drafted.roles.label.header} = {one_of(drafted.roles)}."
    )
    if drafted.roles.snapshot:
        print_line("No time in the data: nothing here says how the model will do later.")
