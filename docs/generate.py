"""Write what docs/ has from the code itself: pages on commands, settings, use case fields and DAGs,
and the picture of the rooms.

`python -m docs.generate` writes them; `--check` only says which of them are out of date.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from docs import rooms
from include.cli.app import app
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase

FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- written by `make docs`; change the code, not this page -->\n\n"


def pages() -> dict[Path, str]:
    """Return the text of every generated file, by its place."""
    found = {
        "commands.md": commands(),
        "settings.md": settings(),
        "use-case.md": use_case(),
        "dags.md": dags(),
    }
    return {FOLDER / name: NOTE + body.rstrip() + "\n" for name, body in found.items()} | {
        rooms.PICTURE: rooms.draw()
    }


def commands() -> str:
    """Return every command with its options."""
    group: Any = typer.main.get_command(app)
    lines = ["# Commands\n"]
    for words, command in sorted(_commands(group, ())):
        lines.append(f"## evergreen {' '.join(words)}\n\n{command.help or ''}\n")
        for parameter in command.params:
            if parameter.name != "help":
                names = (
                    ", ".join(f"`{name}`" for name in parameter.opts)
                    if parameter.opts
                    else f"`{parameter.name}`"
                )
                lines.append(f"- {names}: {getattr(parameter, 'help', None) or 'argument'}")
        lines.append("")
    return "\n".join(lines)


def settings() -> str:
    """Return every setting with its default."""
    lines = ["# Settings\n", "| environment variable | default | what |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = (
            "" if "Secret" in str(field.annotation) else str(field.default).replace(str(ROOT), ".")
        )
        lines.append(f"| `EVERGREEN_{name.upper()}` | `{default}` | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def use_case() -> str:
    """Return every field of a use case."""
    schema = UseCase.model_json_schema()
    lines = [
        "# Fields of a use case\n",
        "`evergreen usecase schema` prints the same as JSON schema.\n",
    ]
    parts = {"UseCase": schema, **schema.get("$defs", {})}
    for name, part in parts.items():
        lines += [
            f"## {name}\n",
            part.get("description", "").strip() + "\n",
            "| field | default | what |",
            "|---|---|---|",
        ]
        required = part.get("required", [])
        for field, spec in part.get("properties", {}).items():
            default = "required" if field in required else f"`{spec.get('default', '')}`"
            lines.append(f"| `{field}` | {default} | {spec.get('description', '')} |")
        lines.append("")
    return "\n".join(lines)


def dags() -> str:
    """Return the run-book of every DAG file, in order of their names."""
    lines = ["# DAGs\n", "One DAG a use case and stage: `<use case>__<name>`.\n"]
    for path in sorted((ROOT / "dags").glob("*.py")):
        lines.append(
            f"## {path.stem}\n\n{ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))}\n"
        )
    return "\n".join(lines)


def main(check: bool) -> int:
    """Write the pages, or name those that differ; return the exit code."""
    stale = []
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                _write(path, text)
    if stale:
        sys.stdout.write(
            f"{'out of date, run `make docs`' if check else 'written'}: {', '.join(stale)}\n"
        )
    return 1 if check and stale else 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
