"""What the commands print: lines, tables and JSON; the question before a change; no secret."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from include.errors import ConfigError

STYLES = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "refused": "red",
    "stale": "magenta",
    "missing": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}
"""Colours of states in a table."""
WIDTH = 200  # columns of a table that goes into a file or a pipe


def print_line(text: str = "") -> None:
    """Write a line on standard output."""
    sys.stdout.write(f"{text}\n")


def print_table(
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
        table.add_row(*(Text(_as_text(value), style=STYLES.get(str(value), "")) for value in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(table)


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one JSON array: instants as ISO 8601 in UTC, what is unknown as null."""
    import json

    values = [{name: _as_json(value) for name, value in row.items()} for row in rows]
    print_line(json.dumps(values, indent=2, allow_nan=False))


def json_option(keys: Sequence[str]) -> Any:
    """Return the option `--json` of a command that lists rows with these keys."""
    return typer.Option(
        "--json", help=f"Print one JSON array instead, of objects with {', '.join(keys)}."
    )


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if a person agrees; `yes` agrees beforehand.

    Raises:
        ConfigError: nobody is there to ask.
        typer.Exit: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is here to answer; add --yes")
    if not typer.confirm(question):
        raise typer.Exit(1)


def without_secrets(text: str) -> str:
    """Return text in which every value of a secret setting is `***`."""
    from pydantic import SecretStr

    from include.config.settings import settings

    try:
        values = [value for _, value in settings() if isinstance(value, SecretStr)]
    except ConfigError:  # it says itself what is wrong, and no value
        return text
    for value in values:
        secret = value.get_secret_value()
        if len(secret) >= 4:  # a shorter one stands in ordinary words
            text = text.replace(secret, "***")
    return text


def _as_json(value: Any) -> Any:
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


def _as_text(value: Any) -> str:
    """Return a cell's text, with what a terminal would obey (escape sequences) made visible."""
    shown = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}"
        for letter in shown
    )
