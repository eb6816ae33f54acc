"""Write what docs/ has from the code: commands, settings, use case fields, DAGs, a picture.

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
from include.config.durations import PATTERN
from include.config.names import COLUMN, NAME
from include.config.settings import ROOT, Settings
from include.config.use_case_schema import use_case_schema
from include.files import write_text

Schema = dict[str, Any]

FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- written by `make docs`; change the code, not this page -->\n\n"
_HEAD_OF_SETTINGS = ("| environment variable | default | what |", "|---|---|---|")
_HEAD_OF_FIELDS = ("| field | type | default | what |", "|---|---|---|---|")


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
    lines = [
        "# Settings\n",
        "Each is an environment variable; one that is not set, or empty, has its default. HOME "
        "stands for `EVERGREEN_HOME`.\n",
        *_HEAD_OF_SETTINGS,
    ]
    for name, field in Settings.model_fields.items():
        default = (
            "" if "Secret" in str(field.annotation) else str(field.default).replace(str(ROOT), ".")
        )
        lines.append(_row(f"`EVERGREEN_{name.upper()}`", _code(default), field.description or ""))
    return "\n".join(lines) + "\n"


def use_case() -> str:
    """Return every field of a use case, by the place where it stands in the YAML."""
    schema = use_case_schema()
    lines = [
        "# Fields of a use case\n",
        "A use case is one YAML file; [Bring your own table](../how-to/own-data.md) explains it. "
        "`evergreen usecase schema` prints the same as JSON schema, which editors understand.\n",
        "A *duration* is a whole number and its unit: `30d`, `2h`, `10m`; units are w, d, h, m, s, "
        "ms, us. NAME stands for a name of your own. A field without a default that is not "
        "required may be left out.\n",
    ]
    for path, part in _parts(schema, "", schema):
        lines += [f"## {path}\n" if path else "## The file\n", f"{part['description'].strip()}\n"]
        lines += _HEAD_OF_FIELDS
        required = part.get("required", [])
        for name, field in part["properties"].items():
            default = "required" if name in required else _default(field)
            lines.append(_row(f"`{name}`", _kind(field), default, field.get("description", "")))
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
                write_text(path, text)
    if stale:
        sys.stdout.write(
            f"{'out of date, run `make docs`' if check else 'written'}: {', '.join(stale)}\n"
        )
    return 1 if check and stale else 0


def _parts(schema: Schema, path: str, part: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield a part of the schema and all below it, each with its place in the YAML."""
    yield path, part
    for name, field in part["properties"].items():
        for below, ref in _references(field):
            place = f"{path}.{name}{below}".lstrip(".")
            yield from _parts(schema, place, schema["$defs"][ref.rpartition("/")[2]])


def _references(field: Schema) -> Iterator[tuple[str, str]]:
    """Yield the parts that a field holds; before those of a mapping `.NAME`, of a list `.N`."""
    if "$ref" in field:
        yield "", field["$ref"]
    for choice in field.get("anyOf", ()):
        yield from _references(choice)
    if "items" in field:
        for below, ref in _references(field["items"]):
            yield f".N{below}", ref
    if values := _values(field):
        for below, ref in _references(values):
            yield f".NAME{below}", ref


def _values(field: Schema) -> Schema:
    """Return what a mapping's values are; one whose keys have a pattern keeps them by it."""
    for values in field.get("patternProperties", {}).values():
        return dict(values)
    values = field.get("additionalProperties")
    return dict(values) if isinstance(values, dict) else {}


def _kind(field: Schema) -> str:
    """Return what may stand in a field, in words."""
    if "anyOf" in field:
        kinds = {_kind(choice): None for choice in field["anyOf"] if choice.get("type") != "null"}
        if "number" in kinds:  # takes whole ones too
            kinds.pop("whole number", None)
        return "value" if {"text", "number"} <= kinds.keys() else " or ".join(kinds)
    if "enum" in field:
        return ", ".join(_code(choice) if choice else '`""`' for choice in field["enum"])
    if "const" in field:
        return _code(_text(field["const"]))
    if "$ref" in field:
        return "mapping"
    kind = field.get("type")
    if kind == "array":
        return f"list of {_kind(field['items'])}s"
    if kind == "object":
        return "mapping" if "$ref" in _values(field) else f"mapping to {_kind(_values(field))}"
    if kind in ("integer", "number"):
        return _number(field)
    if field.get("pattern") == PATTERN:
        return "duration"
    if field.get("pattern") == COLUMN:
        return "column name"
    if field.get("pattern") == NAME:
        return "name"
    if field.get("format") == "date":
        return "date"
    return {"string": "text", "boolean": "true or false"}[str(kind)]


def _number(field: Schema) -> str:
    """Return a number's kind with its limits."""
    kind = "whole number" if field["type"] == "integer" else "number"
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        return f"{kind}, {least:g} to {most:g}"
    below = field.get("exclusiveMaximum")
    if least is not None and below is not None:
        return f"{kind}, {least:g} to below {below:g}"
    if "exclusiveMinimum" in field:
        end = f" and below {below:g}" if below is not None else ""
        return f"{kind} above {field['exclusiveMinimum']:g}{end}"
    return kind if least is None else f"{kind}, at least {least:g}"


def _default(field: Schema) -> str:
    """Return a field's default as a YAML has it; a mapping's stands with its fields."""
    default = field.get("default")
    if default is None or isinstance(default, dict | list):
        return ""
    return _code(_text(default))


def _text(value: object) -> object:
    """Return a value as a YAML has it."""
    return str(value).lower() if isinstance(value, bool) else value


def _code(value: object) -> str:
    return f"`{value}`" if value != "" else ""


def _row(*cells: str) -> str:
    """Return a row of a Markdown table.

    A bar inside a cell would begin another one, and what looks like a tag would not be shown.
    """
    shown = (cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(shown)} |"


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
