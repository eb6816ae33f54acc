"""The command `new`: drafts a use case from a table, shows it, asks what only a person knows."""

from __future__ import annotations

import json
import os
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
    from include.config.settings import Settings
    from include.onboarding.answers import Answers
    from include.onboarding.draft import Draft
    from include.onboarding.profile import Table

_ASKED = ("time", "known", "outcome", "written_later")
"""The fields of answers, in the order of their questions: the first may change the others."""


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
    from include.onboarding.answers import Answers
    from include.onboarding.database import is_address, parse_address, read_database
    from include.onboarding.profile import Table
    from include.onboarding.questions import split_headers

    settings = current_settings()
    if time is not None and snapshot is not None:
        raise ConfigError("--time and --snapshot exclude each other; give one of them")
    answers = Answers(
        key=key,
        time=time,
        label=label,
        snapshot=snapshot.date() if snapshot else None,
        known=known,
        outcome=outcome_known,
        written_later=None if written_later is None else split_headers(written_later),
        guesses=True if yes else None,
    )
    prints = output is not None and str(output) == "-"
    addresses = [parse_address(source) for source in sources if is_address(source)]
    files = [Path(source) for source in sources if not is_address(source)]
    target = _Target(
        files, addresses[0].table[-1] if not files else "", name, output, prints, settings
    )
    old = None if prints else target.read()
    tables = [
        *(Table(file, sheet=sheet, member=member) for file in files),
        *map(read_database, addresses),
    ]
    if old is not None:
        answers = answers.with_others(target.answers_in(old))
    drafted = target.draft(tables, answers)
    if prints:
        print_line(drafted.text.rstrip("\n"))
        return
    if not as_json:
        _show(drafted)
        if not yes and sys.stdin.isatty():
            drafted = _ask(target, tables, drafted)
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


class _Target:
    """Where a draft goes, and how it names its tables from there."""

    def __init__(
        self,
        files: list[Path],
        table: str,
        name: str | None,
        output: Path | None,
        prints: bool,
        settings: Settings,
    ) -> None:
        from include.onboarding.draft import path_in
        from include.onboarding.yaml_text import name_of

        output = None if prints else output
        self._name = name_of(name or table or files[0].name.split(".")[0])
        # Beside its table; tables of the data folder are shared, and may lie where nobody can
        # write. A database has no folder.
        folder = files[0].parent if files else Path()
        if output:
            folder = output.parent
        elif files and files[0].resolve().is_relative_to(settings.data_dir):
            folder = settings.usecase_dirs[0]
        self._paths = {
            source.resolve(): path_in(folder, source, settings.data_dir) for source in files
        }
        if len(self._paths) < len(files):
            raise ConfigError("--from names one table twice; give each once")
        self.path = output or folder / f"{self._name}.yaml"
        if self.path.stem != self._name:
            raise ConfigError(
                f"{self.path}: a use case file has the use case's name; call it {self._name}.yaml, "
                f"or give --name {self.path.stem}"
            )

    def draft(self, tables: list[Table], answers: Answers) -> Draft:
        """Return the draft of tables by answers."""
        from include.onboarding.draft import draft_table
        from include.onboarding.outcome_tables import arrange_tables

        arranged = arrange_tables(tables, answers)
        apart = arranged.outcomes
        return draft_table(
            arranged.main,
            answers,
            given_path=self._paths.get(arranged.main.path),
            name=self._name,
            others=[(each, self._paths.get(each.path, "")) for each in arranged.others],
            outcomes=None if apart is None else (apart, self._paths.get(apart.table.path, "")),
        )

    def read(self) -> str | None:
        """Return what stands in the file already, or None where there is none."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.path} cannot be read ({error}); give another --output"
            ) from None

    def answers_in(self, old: str) -> Answers:
        """Return the answers of the draft that is there; refuse a file that is none."""
        from include.onboarding.redraft import answers_in

        answers = answers_in(old)
        if answers is None:
            raise ConfigError(
                f"{self.path} exists already and is no draft of `evergreen new`; remove it, or "
                "give another --name or --output"
            )
        return answers

    def write(self, drafted: Draft, tables: list[Table], old: str | None) -> None:
        """Write a draft; what a person changed in the one that is there stays.

        Raises:
            ConfigError: it cannot be written, or what was changed cannot be kept.
        """
        from include.onboarding.redraft import redraft

        text = drafted.text
        if old is not None:
            text = redraft(self.path, old, text, lambda answers: self.draft(tables, answers).text)
            if self.read() != old:  # while the questions were answered
                raise ConfigError(f"{self.path} was changed in the meantime; run it again")
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            try:
                temporary.write_text(text, encoding="utf-8")
                if old is None:
                    # Fails where somebody else has made the file since it was looked for.
                    self._make(temporary)
                else:
                    temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            raise ConfigError(f"{self.path} was made in the meantime; run it again") from None
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written ({error.strerror}); give another --output"
            ) from error

    def _make(self, temporary: Path) -> None:
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if self.path.exists():
                raise FileExistsError(self.path) from None
            temporary.replace(self.path)


def _show(drafted: Draft) -> None:
    """Print what was decided, column by column, and what it comes to."""
    from include.onboarding.draft_yaml import one_of
    from include.onboarding.outcome_tables import shown_match
    from include.onboarding.overview import HEADS

    print_table(
        HEADS,
        [view.as_row() for view in drafted.views],
        title=f"{drafted.table.path.name}: {drafted.table.rows} rows",
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
    count, rate = drafted.decisions
    print_line(
        f"{count} decisions; {rate:.1%} of those with an outcome have "
        f"{drafted.roles.label.header} = {one_of(drafted.roles)}."
    )
    if drafted.roles.snapshot:
        print_line("No time in the data: nothing here says how the model will do later.")


def _ask(target: _Target, tables: list[Table], drafted: Draft) -> Draft:
    """Ask what only a person knows, one by one; return the draft by the answers."""
    from include.onboarding.draft_yaml import one_line
    from include.onboarding.questions import answered

    for field in _ASKED:
        question = next((each for each in drafted.questions if each.field == field), None)
        while question is not None:
            print_line()
            for hint in question.hints:
                print_line(f"  {one_line(hint)}")
            others = f" (or: {', '.join(question.choices)})" if question.choices else ""
            # The default is shown here, not by typer: headers may hold what a terminal would obey.
            shown = one_line(f"{question.text}{others} [{question.guess}]")
            text = typer.prompt(shown, default=question.guess, show_default=False)
            try:
                answers = answered(question, text, drafted.answers)
                drafted = target.draft(tables, answers)
                break
            except ConfigError as error:
                print_line(f"  {one_line(str(error))}")
    return drafted
