"""What is wrong with a use case beyond its form: names of nothing, SQL that does not run, zones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb

from include.config import use_case_file
from include.config.use_case import UseCase
from include.config.use_case_sources import Column, Source
from include.errors import ConfigError
from include.ingestion.computed import expression_of
from include.ingestion.values import trimmed_text, typed
from include.lake.sql import connect, text_literal
from include.onboarding.check_queries import OUTCOME, TIME, Problem, Where, query_problems
from include.pipeline import declared

TIMES = ("event_timestamp", "created_timestamp")


def check_file(path: Path) -> UseCase:
    """Return the use case of a file.

    Raises:
        ConfigError: every problem on a line of its own, with the file, the line and the remedy.
    """
    use_case = use_case_file.load(path)
    wrong = list(find_problems(use_case))
    if wrong:
        lines = use_case_file.lines(path.read_text(encoding="utf-8"))
        raise ConfigError(
            "\n".join(
                f"{path}, line {_line(where, lines)}: {'.'.join(where)}: {text}"
                for where, text in wrong
            )
        )
    return use_case


def find_problems(use_case: UseCase) -> Iterator[Problem]:
    """Yield what is wrong with a use case that is well formed."""
    wrong_names = list(declared.find_problems(use_case))
    yield from wrong_names
    for name, source in use_case.sources.items():
        yield from _source(("sources", name), source)
    # Where two names are one, a query would fail for that, and say it worse.
    with_sql = not wrong_names
    yield from _label(use_case, with_sql)
    for name in use_case.features:
        yield from _view(use_case, name, with_sql)
    yield from _training(use_case)


def _source(where: Where, source: Source) -> Iterator[Problem]:
    """Yield what is wrong with a source: zone, patterns, limits, formats, times."""
    try:
        ZoneInfo(source.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        yield (
            (*where, "timezone"),
            f"{source.timezone!r} is no time zone; write one such as Europe/Berlin",
        )
    for name, column in source.columns.items():
        yield from _column((*where, "columns", name), name, column, source)
    if source.max_rows is not None and source.min_rows > source.max_rows:
        yield (
            (*where, "min_rows"),
            f"{source.min_rows} is above max_rows ({source.max_rows}); swap them",
        )
    headers = [
        column.header or name for name, column in source.columns.items() if column.is_delivered
    ]
    for header in sorted({header for header in headers if headers.count(header) > 1}):
        yield (*where, "columns"), f"two columns have the header {header!r}; each needs its own"
    kinds = {name: column.type for name, column in source.columns.items()}
    for time in source.time_columns:
        if kinds.get(time) not in (None, "timestamp", "date", "string"):
            yield (
                (*where, "columns", time),
                f"is the source's time but of type {kinds[time]}; make it timestamp or date",
            )


def _column(where: Where, name: str, column: Column, source: Source) -> Iterator[Problem]:
    """Yield what is wrong with a column: pattern, limits, allowed values, expression, format."""
    if column.regex is not None:
        try:
            with connect() as con:
                con.execute("SELECT regexp_full_match('', ?)", [column.regex])
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            yield (
                (*where, "regex"),
                f"{column.regex!r} is no regular expression ({reason}); correct it",
            )
    if column.min is not None and column.max is not None and column.min > column.max:
        yield (
            where,
            f"min ({column.min:g}) is above max ({column.max:g}); swap them",
        )
    for value in column.values or []:
        if not _reads(value, column, source):
            yield (
                (*where, "values"),
                f"{value!r} is no value of type {column.type}; correct one of the two",
            )
    if column.sql is not None:
        try:
            expression_of(name, source)
        except ConfigError as error:
            yield (*where, "sql"), _about_expression(name, source, str(error))
    if column.dates is not None and (reason := _no_format(column, source)):
        yield (
            (*where, "dates"),
            f"{column.dates!r} is no format of dates ({reason}); correct it",
        )


def _about_expression(name: str, source: Source, reason: str) -> str:
    """Return what is wrong with a computed column, and that it can read no other computed one."""
    read = [
        other
        for other, column in source.columns.items()
        if other != name
        and column.sql is not None
        and re.search(rf"\b{re.escape(other)}\b", str(source.columns[name].sql), re.IGNORECASE)
    ]
    if not read or "no delivered column" not in reason:
        return f"the expression {reason}"
    return (
        f"the expression {reason}. {', '.join(read)} is computed itself: repeat its expression here"
    )


def _label(use_case: UseCase, with_sql: bool) -> Iterator[Problem]:
    """Yield what is wrong with the label: columns that are not there, types, its query."""
    label = use_case.label
    if label.source is not None:
        source = use_case.sources[label.source]
        if source.kind == "static":
            yield (
                ("label", "source"),
                f"{label.source} is static, and decisions have moments; make it events, or write "
                "label.sql",
            )
        columns = {*source.columns, *source.time_columns}
        if label.column not in columns:
            yield (
                ("label", "column"),
                f"{label.column!r} is no column of {label.source}; it has {sorted(columns)}",
            )
        elif label.column in source.columns:
            yield from _outcome(use_case, source.columns[label.column], source)
        if label.assumed_lag is None and label.label_time not in columns:
            yield (
                ("label", "label_time"),
                f"{label.label_time!r} is no column of {label.source}; name one, or `event + "
                "DURATION`",
            )
        elif label.label_time in source.columns and (
            kind := source.columns[label.label_time].type
        ) not in ("timestamp", "date"):
            yield (
                ("label", "label_time"),
                f"{label.label_time!r} is of type {kind}; declare its column timestamp or date",
            )
        if use_case.entity.key not in columns:
            yield (
                ("label", "source"),
                f"{label.source} has no column {use_case.entity.key!r}, the entity's key; declare "
                "it",
            )
        yield from _entity(use_case, label.source)
    elif label.sql is not None and with_sql:
        wanted = {
            use_case.entity.key: use_case.entity.type,
            "event_timestamp": TIME,
            "label_timestamp": TIME,
            "label": OUTCOME,
        }
        yield from query_problems(use_case, ("label", "sql"), label.sql, wanted, label.lookback)


def _outcome(use_case: UseCase, column: Column, source: Source) -> Iterator[Problem]:
    """Yield what keeps a label column of a type from being 0 and 1."""
    label, kind = use_case.label, column.type
    if not label.positives and kind not in ("bool", "int64", "float64"):
        yield (
            ("label", "column"),
            f"{label.column!r} is of type {kind}; a label is bool or 0 and 1, else name what "
            "counts as 1 by `positive`",
        )
    elif label.positives and kind in ("timestamp", "date"):
        yield (
            ("label", "column"),
            f"{label.column!r} is of type {kind}, which is no outcome; write label.sql",
        )
    elif kind in ("bool", "int64", "float64"):
        for text in label.positives:
            if not _reads(text, column, source):
                yield (
                    ("label", "positive"),
                    f"{text!r} is no value of {label.column!r}, which is of type {kind}; correct "
                    "one",
                )


def _reads(text: str, column: Column, source: Source) -> bool:
    """Tell whether the contract reads a text as a value of the column."""
    with connect() as con:
        cell = trimmed_text(text_literal(text), column, source)
        query = f"SELECT ({typed(cell, column, source)}) IS NOT NULL"
        return bool(con.execute(query).fetchall()[0][0])


def _no_format(column: Column, source: Source) -> str:
    """Return why the format of a column's dates cannot be read, empty where it can."""
    try:
        with connect() as con:
            con.execute(f"SELECT {typed('CAST(NULL AS VARCHAR)', column, source)}")
    except duckdb.Error as error:
        return str(error).splitlines()[0].rpartition(": ")[2]
    return ""


def _entity(use_case: UseCase, name: str) -> Iterator[Problem]:
    """Yield that a source holds the entity's key in another type than the entity has."""
    entity, column = use_case.entity, use_case.sources[name].columns.get(use_case.entity.key)
    if column is not None and column.type not in (entity.type, "float64"):
        right = column.type if column.type in ("int64", "string") else "string"
        yield (
            ("entity",),
            f"{entity.key!r} is {column.type} in {name}, but the entity is {entity.type}; write "
            f"type: {right} for both",
        )


def _view(use_case: UseCase, name: str, with_sql: bool) -> Iterator[Problem]:
    """Yield what is wrong with a view: columns that are not there, types, its query."""
    view, where = use_case.features[name], ("features", name)
    if view.source is not None:
        source = use_case.sources[view.source]
        if source.kind == "static":
            yield (
                (*where, "source"),
                f"{view.source} is static: its rows have no moment; write sql instead of source",
            )
        for column, kind in view.columns.items():
            contract = source.columns.get(column)
            if contract is None:
                yield (
                    (*where, "columns", column),
                    f"is no column of {view.source}; it has {sorted(source.columns)}",
                )
            elif not _fits(contract.type, kind):
                yield (
                    (*where, "columns", column),
                    f"is {contract.type} in {view.source}, not {kind}; declare one of the two",
                )
        if use_case.entity.key not in source.columns:
            yield (
                (*where, "source"),
                f"{view.source} has no column {use_case.entity.key!r}, the entity's key; declare "
                "it",
            )
        elif view.source != use_case.label.source:
            yield from _entity(use_case, view.source)
    elif view.sql is not None and with_sql:
        times = dict.fromkeys(TIMES, TIME) if view.grain == "event" else {}
        wanted = {use_case.entity.key: use_case.entity.type, **times, **view.columns}
        yield from query_problems(use_case, (*where, "sql"), view.sql, wanted, view.lookback)


def _training(use_case: UseCase) -> Iterator[Problem]:
    """Yield what is wrong with the training: features, parts, LightGBM's parameters."""
    from include.models.kinds import DEFAULT, kind_of

    training = use_case.training
    if not use_case.trained_features:
        yield (
            ("training", "exclude"),
            "it leaves no feature to train on; take one out, or add a feature",
        )
        return
    if training.split.tune + training.split.evaluation >= 1:
        yield (
            ("training", "split"),
            "tune and evaluation leave nothing to train on; their sum has to be below 1",
        )
    if use_case.is_timeless and training.split.by == "time":
        yield (
            ("training", "split", "by"),
            "all decisions are of one day (snapshot), which no time divides; write by: hash",
        )
    for name, reason in kind_of(DEFAULT).parameter_problems(
        training.params, len(use_case.trained_features)
    ):
        yield ("training", "params", *([name] if name else [])), reason


def _fits(declared: str, wanted: str) -> bool:
    return declared == wanted or (declared, wanted) == ("int64", "float64")


def _line(where: Where, lines: dict[Where, int]) -> int:
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 1)
