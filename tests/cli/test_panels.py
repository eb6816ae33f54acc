"""The commands stand in groups, and every option says what it does."""

from __future__ import annotations

import typer

from include.cli.app import app
from include.cli.panels import PANELS
from tests.builders.command_line import (
    Run,
)


def test_every_command_stands_in_one_group(run: Run) -> None:
    command = typer.main.get_command(app)
    visible = [name for name, one in command.commands.items() if not one.hidden]  # type: ignore[attr-defined]
    assert sorted(visible) == sorted(name for names in PANELS.values() for name in names)
    shown = run("--help").out
    places = [shown.index(f"{panel}:") for panel in PANELS]
    assert places == sorted(places)
    assert "Other" not in shown


def test_every_option_and_argument_is_explained() -> None:
    from docs.generate import _commands

    command = typer.main.get_command(app)
    for words, one in _commands(command, ()):
        assert one.help, words
        for parameter in one.params:
            assert parameter.name == "help" or parameter.help, (words, parameter.name)
