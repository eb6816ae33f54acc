"""What a use case declares that no stage could hold, and the one way in which a column becomes what
it is declared to be.

Keys name people: a type under which two of them could become one is refused, never cast.
"""

from __future__ import annotations

from collections.abc import Iterator

from include.config import names
from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import quote

Problem = tuple[tuple[str, ...], str]

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
# what may be cast without a loss that nobody asked for; a column of nothing but NULL may be
# anything.
_ACCEPTED = {
    "int64": {*_INTEGERS, "NULL"},
    "float64": {*_INTEGERS, "FLOAT", "DOUBLE", "DECIMAL", "NULL"},
    "string": {"VARCHAR", "ENUM", "UUID", "NULL"},
    "bool": {"BOOLEAN", "NULL"},
}


def cast(name: str, found: str, kind: str, where: str) -> str:
    """Return the expression of a column, of DuckDB's type `found`, as the type that is declared for
    it.

    Raises: ConfigError: values of that type could not be told apart any more, or are no such values
        at all.
    """
    if found.split("(", maxsplit=1)[0].strip('"') not in _ACCEPTED[kind]:
        raise ConfigError(
            f"{where}: column {name} is {found}, declared {kind}; cast it, or declare what it is"
        )
    return f"CAST({quote(name)} AS {SQL_TYPES[kind]})"


def refuse(use_case: UseCase) -> None:
    """Refuse a use case with names or keys that no stage could hold.

    Raises:
        ConfigError: names each of them, with the remedy.
    """
    found = [f"{'.'.join(where)}: {text}" for where, text in problems(use_case)]
    if found:
        raise ConfigError("\n".join(f"{use_case.name}: {line}" for line in found))


def problems(use_case: UseCase) -> Iterator[Problem]:
    """Yield the names that are ours or differ in case alone, and the keys that could lose
    values: where, and the remedy.
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
    named = list(dict.fromkeys([*source.columns, *source.time_columns]))
    for column in named:
        header = column if column not in source.columns else source.columns[column].header or column
        own = column in source.time_columns and (
            column in names.TIMES or column not in source.columns
        )
        if names.is_ours(column, names.ROWS):
            yield (
                (*where, column),
                f"is a name of Evergreen's own; write {_renamed(column, header)}",
            )
        elif column.lower() in names.TIMES and not own:
            role = "event_time" if column.lower() == names.TIMES[0] else "arrival"
            yield (
                (*where, column),
                f"is Evergreen's own name for the {role} of a row, and this column is not it; "
                f"write {_renamed(column, header)}",
            )
    for group in names.alike(named):
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
        declared = source.columns.get(column)
        if declared is not None and declared.type == "float64":
            what = "the source's key" if column in source.key else "the entity's key"
            yield (
                (*where, column),
                f"is part of {what} but of type float64, under which two keys can become one; "
                "declare int64 or string",
            )
