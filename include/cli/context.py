"""What the commands share: settings, records, the use case, the keys that were asked for, and how they speak."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.errors import ConfigError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.records.records import Records

UseCaseArgument = Annotated[str, typer.Argument(metavar="USE_CASE", help="Name of a use case, such as repayment.")]
UseCaseOption = Annotated[str, typer.Option("--use-case", "-u", metavar="NAME", help="Name of a use case, such as repayment.")]
Partition = Annotated[str | None, typer.Option("--partition", "-p", metavar="KEY", help="First day of the period, YYYY-MM-DD.")]
First = Annotated[str | None, typer.Option("--from", metavar="KEY", help="First partition of a range.")]
Last = Annotated[str | None, typer.Option("--to", metavar="KEY", help="Last partition of a range, included.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

STYLES = {"done": "green", "running": "cyan", "waiting": "yellow", "refused": "red", "stale": "magenta", "missing": "red"}


def current_settings() -> Settings:
    """Return the settings; a wrong one is a ConfigError that names its variable and never shows its value."""
    from pydantic import ValidationError

    from include.config.settings import settings

    try:
        return settings()
    except ValidationError as error:
        wrong = [f"EVERGREEN_{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors(include_input=False)]
        raise ConfigError("; ".join(wrong)) from None


def open_records(settings: Settings) -> Records:
    """Return the records, with their tables made or brought to this version."""
    from include.records.records import Records

    settings.home.mkdir(parents=True, exist_ok=True)
    records = Records.open(settings.records_address)
    records.migrate()
    return records


def find_use_case(settings: Settings, name: str) -> UseCase:
    """Return a use case by its name."""
    from include.config.use_case_file import find

    return find(name, settings.usecase_dirs)


def wanted_keys(use_case: UseCase, partition: str | None, first: str | None, last: str | None) -> list[str]:
    """Return the keys that `--partition`, or `--from` and `--to`, name."""
    from include.point_in_time.partitions import between, period

    if partition is not None and first is None and last is None:
        return [period(use_case, partition).key]
    if partition is None and first is not None and last is not None:
        keys = between(use_case, first, last)
        if not keys:
            raise ConfigError(f"--from {first} is after --to {last}; swap them")
        return keys
    raise ConfigError("give either --partition KEY, or --from KEY and --to KEY")


def say(text: str = "") -> None:
    """Write a line on standard output."""
    sys.stdout.write(f"{text}\n")


def show(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Write a table; values are shown as they are, never as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_plain(value), style=STYLES.get(str(value), "")) for value in row))
    console = Console(highlight=False)
    console.print(table) if console.is_terminal else Console(highlight=False, width=200).print(table)


def ask(question: str, *, yes: bool) -> None:
    """Go on only if a person says so.

    Raises:
        ConfigError: nobody is there to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is here to answer; add --yes")
    if not typer.confirm(question):
        raise typer.Exit(1)


def without_secrets(text: str) -> str:
    """Return text in which no value of a secret setting stands."""
    from pydantic import SecretStr, ValidationError

    from include.config.settings import settings

    try:
        values = [value for _, value in settings() if isinstance(value, SecretStr)]
    except ValidationError:
        return text
    for value in values:
        secret = value.get_secret_value()
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return text


def actor() -> str:
    """Return who gives the command, for the audit record."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def _plain(value: Any) -> str:
    shown = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in shown)
