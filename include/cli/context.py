"""What the commands share: settings, records, use case, the keys that are asked for, how they
speak.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.suggestions import Mistake, nearest, nearest_key
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.records.records import Records

UseCaseArgument = Annotated[
    str, typer.Argument(metavar="USE_CASE", help="Name of a use case, such as repayment.")
]
UseCaseOption = Annotated[
    str,
    typer.Option("--use-case", "-u", metavar="NAME", help="Name of a use case, such as repayment."),
]
KEY_HELP = "Key of a partition: the first day of its period, YYYY-MM-DD."
Partition = Annotated[str | None, typer.Option("--partition", "-p", metavar="KEY", help=KEY_HELP)]
First = Annotated[
    str | None, typer.Option("--from", metavar="KEY", help="First partition of a range.")
]
Last = Annotated[
    str | None, typer.Option("--to", metavar="KEY", help="Last partition of a range, included.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why you do it; kept in the audit log.")
]

STYLES = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "refused": "red",
    "stale": "magenta",
    "missing": "red",
}


def current_settings() -> Settings:
    """Return the settings; a wrong one is a ConfigError that names its variable and never shows
    its value.
    """
    from pydantic import ValidationError

    from include.config.settings import settings

    try:
        return settings()
    except ValidationError as error:
        wrong = [
            f"EVERGREEN_{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        ]
        raise ConfigError("; ".join(wrong)) from None


def open_records(settings: Settings) -> Records:
    """Return the records, with their tables made or brought to this version."""
    from include.records.records import Records

    settings.home.mkdir(parents=True, exist_ok=True)
    records = Records.open(settings.records_address)
    records.migrate()
    return records


def find_use_case(settings: Settings, name: str) -> UseCase:
    """Return a use case by its name.

    Raises:
        Mistake: there is none of this name.
        ConfigError: its file is wrong.
    """
    from include.config.use_case_file import files, find

    known = {path.stem for path in files(settings.usecase_dirs)}
    try:
        return find(name, settings.usecase_dirs)
    except ConfigError as error:
        if name in known:
            raise
        raise Mistake(str(error), wrong=name, meant=nearest(Path(name).stem, known)) from None


def checked_key(use_case: UseCase, key: str) -> str:
    """Return a partition key of a use case as it was given.

    Raises:
        Mistake: it is malformed, or out of the use case's history.
    """
    from include.clock import utc_now
    from include.point_in_time.partitions import period

    try:
        return period(use_case, key).key
    except ConfigError as error:
        raise Mistake(str(error), wrong=key, meant=nearest_key(use_case, key, utc_now())) from None


def wanted_keys(
    use_case: UseCase, partition: str | None, first: str | None, last: str | None
) -> list[str]:
    """Return the keys that `--partition`, or `--from` and `--to`, name."""
    if partition is not None and first is None and last is None:
        return [checked_key(use_case, partition)]
    if partition is None and first is not None and last is not None:
        return keys_between(use_case, first, last)
    raise ConfigError("give either --partition KEY, or --from KEY and --to KEY")


def keys_between(use_case: UseCase, first: str, last: str) -> list[str]:
    """Return the keys from `first` to `last`, both included and at least one."""
    from include.point_in_time.partitions import between

    keys = between(use_case, checked_key(use_case, first), checked_key(use_case, last))
    if not keys:
        raise ConfigError(f"--from {first} is after --to {last}; swap them")
    return keys


def newest_for(use_case: UseCase, keys: Sequence[str]) -> str:
    """Return the newest complete partition of a use case, which none of some keys is after.

    Raises:
        Mistake: one of them is not complete yet.
    """
    from include.clock import utc_now
    from include.point_in_time.partitions import newest_complete

    newest = newest_complete(use_case, utc_now())
    late = [key for key in keys if newest is None or key > newest]
    if newest is None or late:
        wrong = late[0] if late else use_case.history.first.isoformat()
        told = (
            f"partition {wrong} of {use_case.name} is not complete yet; the newest complete "
            f"one is {newest or 'none'}"
        )
        raise Mistake(told, wrong=wrong, meant=newest)
    return newest


def say(text: str = "") -> None:
    """Write a line on standard output."""
    sys.stdout.write(f"{text}\n")


def show(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
) -> None:
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
    console.print(table) if console.is_terminal else Console(highlight=False, width=200).print(
        table
    )


def say_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one JSON array: instants as ISO 8601 in UTC, what is unknown as null."""
    import json

    told = [{name: _valued(value) for name, value in row.items()} for row in rows]
    say(json.dumps(told, indent=2, allow_nan=False))


def as_json(keys: Sequence[str]) -> Any:
    """Return the option `--json` of a command that lists rows with these keys."""
    return typer.Option(
        "--json", help=f"Print one JSON array instead, of objects with {', '.join(keys)}."
    )


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


def _valued(value: Any) -> Any:
    """Return a value as JSON has it; mappings become JSON text, so that the rows stay flat."""
    import json
    import math

    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if value == "" else value


def _plain(value: Any) -> str:
    shown = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}"
        for letter in shown
    )
