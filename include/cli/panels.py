"""The commands in groups by who needs them, and suggestions for an unknown one."""

from __future__ import annotations

from shlex import quote
from typing import Any

from typer.core import TyperGroup

from include.cli.suggestions import meant_by, stage_words

PANELS = {
    "Everyday": ("up", "status", "models", "run", "score", "stop"),
    "Bring your own table": ("new", "usecase", "try", "load-history", "backfill", "simulate"),
    "Release": ("rollback", "release"),
    "Records and repair": ("heal", "quarantine", "audit", "import-predictions", "gc", "reset"),
    "This installation": (
        "doctor",
        "backup",
        "restore",
        "move",
        "password",
        "token",
        "keys",
        "serve",
        "migrate",
        "airflow-init",
        "version",
    ),
}
"""Commands by group, in order of how often they are needed."""


class Suggesting(TyperGroup):
    """A group of commands that suggests, for an unknown one, which was probably meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name."""
        if self.get_command(ctx, args[0]) is None and (meant := meant_by(args[0], self.words())):
            command = " ".join([ctx.command_path, meant, *map(quote, args[1:])])
            ctx.fail(f"No such command {args[0]!r}. Did you mean `{command}`?")
        return super().resolve_command(ctx, args)

    def words(self) -> dict[str, str]:
        """Return the words that a command may be called by, with the command of each."""
        return {name: name for name, command in self.commands.items() if not command.hidden}


class Panels(Suggesting):
    """The command line with its commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each group with its commands and their first sentences."""
        summaries = {
            name: command.get_short_help_str(200)  # characters; click's own limit cuts sentences
            for name, command in self.commands.items()
            if not command.hidden
        }
        widest = max(map(len, summaries))
        grouped = {name for names in PANELS.values() for name in names}
        for panel, names in {**PANELS, "Other": tuple(summaries.keys() - grouped)}.items():
            lines = [(name.ljust(widest), summaries[name]) for name in names if name in summaries]
            if lines:
                with formatter.section(panel):
                    formatter.write_dl(lines)

    def words(self) -> dict[str, str]:
        """Return the commands, those of the groups below, and the stages, which `run` runs."""
        groups = {
            name: command
            for name, command in self.commands.items()
            if isinstance(command, TyperGroup)
        }
        parts = {
            part: f"{name} {part}" for name, group in groups.items() for part in group.commands
        }
        stages = {word: f"run {stage}" for word, stage in stage_words().items()}
        return stages | parts | super().words()
