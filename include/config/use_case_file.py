"""Reads use cases: `load` and `find` read files, `parse` reads text.

Size and depth are limited, and YAML's anchors and aliases are refused, before anything is built
from a text: a few lines of aliases can stand for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from include.config.names import NAME
from include.config.use_case import UseCase
from include.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
_UNKNOWN_FIELD = "is not a known field; see `evergreen usecase schema`, or remove the line"


def parse(text: str, *, where: str = "use case", folder: Path = Path(".")) -> UseCase:
    """Read one use case from YAML text; `where` names the text in messages.

    Raises:
        ConfigError: with the file, the line, what is wrong and what would be right.
    """
    data, lines = _compose(text, where)
    if "folder" in data:  # a field of the model that only the loader sets
        raise ConfigError(f"{where}, line {lines[('folder',)]}: folder: {_UNKNOWN_FIELD}")
    try:
        return UseCase.model_validate({**data, "folder": folder})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, where, lines))) from None


def lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line on which each field of a use case's YAML stands, by its path."""
    return _compose(text, "use case")[1]


def load(path: Path) -> UseCase:
    """Read one use case file; its name must be that of the use case.

    Raises:
        ConfigError: it cannot be read, is too large, or is wrong.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_BYTES // 1024} KB; a use case is a page of YAML, keep "
                "SQL in .sql files"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as UTF-8 text ({error}); check the path and its permissions"
        ) from error
    use_case = parse(text, where=str(path), folder=path.parent.resolve())
    if use_case.name != path.stem:
        raise ConfigError(
            f"{path}: name is {use_case.name!r}; call the file {use_case.name}.yaml, or change "
            "the name"
        )
    return use_case


def files(folders: list[Path]) -> Iterator[Path]:
    """Yield the use case files of the folders, in order of their names."""
    for folder in folders:
        yield from sorted(folder.glob("*.yaml"))


def find(name: str, folders: list[Path]) -> UseCase:
    """Return the use case `name` from the first folder that has it.

    Raises:
        ConfigError: no folder has it; the message lists what there is.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{name!r} is no use case name; names match {NAME}")
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return _load_cached(path, path.stat().st_mtime_ns)
    names = sorted(path.stem for path in files(folders))
    raise ConfigError(
        f"no use case {name!r}; there are {names}. Add {name}.yaml to one of "
        f"{[str(f) for f in folders]}"
    )


@lru_cache(maxsize=64)
def _load_cached(path: Path, _changed: int) -> UseCase:
    """Read a file once as long as it is unchanged: Airflow parses DAG files every few seconds."""
    return load(path)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates to pydantic."""


# Without YAML's own timestamps: pydantic says of a wrong date what is wrong, YAML only fails.

_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _compose(text: str, where: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Return the mapping that a text holds, and the line of every path in it."""
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(
            f"{where}: larger than {MAX_BYTES // 1024} KB; a use case is a page of YAML"
        )
    try:
        _refuse_expansion(text, where)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise ConfigError(f"{where}: must be a mapping that begins with `name: ...`")
            lines: dict[tuple[str, ...], int] = {}
            _collect_lines(node, (), lines, where)
            data = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{where}{at}: not valid YAML ({getattr(error, 'problem', None) or error})"
        ) from None
    except ValueError as error:  # YAML's own numbers, such as `0b_` or one of ten thousand digits
        raise ConfigError(
            f"{where}: a value looks like a number but is none ({error}); put it in quotes"
        ) from None
    _refuse_keys_that_are_no_text(data, where)
    return data, lines


def _refuse_expansion(text: str, where: str) -> None:
    """Refuse anchors, aliases, tags and deep nesting, from events: before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                f"{where}, line {line}: anchors (&) and aliases (*) are refused; write the value "
                "out"
            )
        if getattr(event, "tag", None):
            raise ConfigError(f"{where}, line {line}: tags (!) are refused; write the plain value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where}, line {line}: nested deeper than {MAX_DEPTH} levels")


def _refuse_keys_that_are_no_text(data: dict[Any, Any], where: str) -> None:
    """Refuse keys that YAML reads as something else, such as `1:` or `on:`, at any depth."""
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise ConfigError(
                    f"{where}: the key {wrong[0]!r} is no text; put it in quotes, or correct it"
                )
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _collect_lines(
    node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int], where: str
) -> None:
    """Enter the line of a node and of all below it; refuse a key that stands twice."""
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            if below in lines:
                raise ConfigError(
                    f"{where}, line {key.start_mark.line + 1}: {key.value!r} stands twice; keep one"
                )
            _collect_lines(value, below, lines, where)
            # The key's line, which the value's own (of a block, the one after) has just taken.
            lines[below] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*path, str(index)), lines, where)


def _explain(
    error: ValidationError, where: str, lines: dict[tuple[str, ...], int]
) -> Iterator[str]:
    """Yield a message for each problem that pydantic found, with its line."""
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        # A check over several fields has no place of its own; its message begins with one.
        named = re.match(r"(?:\w+\.)*\w+", message)
        place = path or (tuple(named[0].split(".")) if named else ())
        while place and place not in lines:  # a missing field has no line, its parent has
            place = place[:-1]
        if problem["type"] == "extra_forbidden":
            message = _UNKNOWN_FIELD
        elif problem["type"] == "missing":
            message = "is missing; add it"
        yield f"{where}, line {lines.get(place, 1)}: {'.'.join(path) or 'use case'}: {message}"
