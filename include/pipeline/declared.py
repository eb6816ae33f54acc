"""Refuse names and keys that no stage could hold, and cast columns to what they are declared to be.

Keys name people: a type under which two of them could become one is refused, never cast.
"""

from __future__ import annotations

from collections.abc import Iterator

from include.config import names
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote

Problem = tuple[tuple[str, ...], str]  # path in the YAML, remedy

SQL_TYPES = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "bool": "BOOLEAN"}
_INTEGERS = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
}
# What may be cast without a loss that nobody asked for; a column of nothing but NULL may be
# anything.
_ACCEPTED = {
    "int64": {*_INTEGERS, "NULL"},
    "float64": {*_INTEGERS, "FLOAT", "DOUBLE", "DECIMAL", "NULL"},
    "string": {"VARCHAR", "ENUM", "UUID", "NULL"},
    "bool": {"BOOLEAN", "NULL"},
}


def cast(name: str, actual: str, declared: str, where: str) -> str:
    """Return SQL that casts a column of DuckDB's type `actual` to the type that is declared for it.

    `where` is what the message of an error begins with.

    Raises:
        ConfigError: values of that type could not be told apart any more, or are none such at all.
    """
    # Without what follows the type's name: DECIMAL(18,3), ENUM('a', 'b').
    if actual.split("(", maxsplit=1)[0].strip('"') not in _ACCEPTED[declared]:
        raise ConfigError(
            f"{where}: column {name} is {actual}, declared {declared}; cast it, or declare what "
            "it is"
        )
    return f"CAST({quote(name)} AS {SQL_TYPES[declared]})"


def check_declared(use_case: UseCase) -> None:
    """Refuse a use case with names or keys that no stage could hold.

    Raises:
        ConfigError: names each of them, with the remedy.
    """
    lines = [
        f"{use_case.name}: {'.'.join(where)}: {remedy}" for where, remedy in find_problems(use_case)
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def find_problems(use_case: UseCase) -> Iterator[Problem]:
    """Yield where the use case declares what no stage could hold, each with the remedy.

    That are names that are ours or differ in case alone, and keys that could lose values.
    """
    for name in use_case.sources:
        yield from _source_names(use_case, name)
        yield from _keys(use_case, name)
    key = use_case.entity.key
    if names.is_ours(key, (*names.ROWS, *names.FRAMES, *names.SCORES)):
        yield (
            ("entity", "key"),
            f"{key!r} is a name of Evergreen's own; give the column another and say header: {key}",
        )
    features = [name for view in use_case.features.values() for name in view.columns]
    for view, spec in use_case.features.items():
        for column in spec.columns:
            if names.is_ours(column, names.FRAMES):
                yield (
                    ("features", view, "columns", column),
                    f"is a name of Evergreen's own; {_other(column)}",
                )
            elif column.lower() == key.lower():
                yield (
                    ("features", view, "columns", column),
                    f"is the entity's key {key!r}, never a feature; remove it",
                )
    for group in names.alike(features):
        view = next(view for view, spec in use_case.features.items() if group[-1] in spec.columns)
        yield (
            ("features", view, "columns", group[-1]),
            f"differs from {group[0]!r} in nothing but case; rename one",
        )


def _source_names(use_case: UseCase, name: str) -> Iterator[Problem]:
    source, where = use_case.sources[name], ("sources", name, "columns")
    columns = list(dict.fromkeys([*source.columns, *source.time_columns]))
    for column in columns:
        spec = source.columns.get(column)
        header = column if spec is None else spec.header or column
        renamed = (
            _renamed(column, header)
            if spec is None or spec.is_delivered
            else f"another, such as {column.strip('_')}_value"
        )
        is_its_own_time = column in source.time_columns and (
            column in names.TIMES or column not in source.columns
        )
        if names.is_ours(column, names.ROWS):
            yield (
                (*where, column),
                f"is a name of Evergreen's own; write {renamed}",
            )
        elif column.lower() in names.TIMES and not is_its_own_time:
            role = "event_time" if column.lower() == names.TIMES[0] else "arrival"
            yield (
                (*where, column),
                f"is Evergreen's own name for the {role} of a row, and this column is not it; "
                f"write {renamed}",
            )
    for group in names.alike(columns):
        yield (
            (*where, group[-1]),
            f"differs from {group[0]!r} in nothing but case, and names are compared without it; "
            f"write {_renamed(group[-1], group[-1])}",
        )


def _renamed(column: str, header: str) -> str:
    return f"{column.strip('_')}_value: {{header: {header}, ...}}"


def _other(column: str) -> str:
    plain = column.strip("_")
    return (
        f"name the source's column {plain}_value with header: {column}, or write AS "
        f"{plain}_value in the SQL"
    )


def _keys(use_case: UseCase, name: str) -> Iterator[Problem]:
    source, where = use_case.sources[name], ("sources", name, "columns")
    for column in dict.fromkeys([*source.key, use_case.entity.key]):
        spec = source.columns.get(column)
        if spec is not None and spec.type == "float64":
            role = "the source's key" if column in source.key else "the entity's key"
            yield (
                (*where, column),
                f"is part of {role} but of type float64, under which two keys can become one; "
                "declare int64 or string",
            )
