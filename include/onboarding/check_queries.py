"""What is wrong with a query of a use case: tables that are none, columns that it lacks, types."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import timedelta

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.lake.sql import connect
from include.lake.tables import Lake
from include.pipeline import declared
from include.point_in_time.partitions import period
from include.point_in_time.queries import resolve_sql, tables_in
from include.point_in_time.views import AsOfViews

Where = tuple[str, ...]  # the path of a field in the YAML
Problem = tuple[Where, str]  # where, and what is wrong with its remedy
TIME, OUTCOME = "a time", "an outcome"  # kinds of a query's columns besides those of features


def query_problems(
    use_case: UseCase, where: Where, text: str, wanted: Mapping[str, str], lookback: timedelta
) -> Iterator[Problem]:
    """Run a query over sources without rows, and compare its columns with those that are wanted."""
    try:
        query = resolve_sql(use_case, text)
        if unknown := sorted(tables_in(query) - set(use_case.sources)):
            yield (
                where,
                f"the query reads {unknown}; sources are {sorted(use_case.sources)}. Correct the "
                "name, or declare it",
            )
            return
        with (
            tempfile.TemporaryDirectory() as empty,
            AsOfViews(connect(alone=True), Lake(empty), use_case, keys=[]) as views,
        ):
            views.at(period(use_case, use_case.history.first.isoformat()), lookback)
            views.query(query)
            given = views.types(query)
    except ConfigError as error:
        yield where, re.sub(rf"^{re.escape(use_case.name)}: ", "", str(error))
        return
    missing = [name for name in wanted if name not in given]
    if missing:
        yield (
            where,
            f"the query gives no column {missing}; it gives {list(given)}. Add it to the SELECT, "
            "or correct the YAML",
        )
    for name, kind in wanted.items():
        if name in given and (reason := _misfit(name, given[name], kind)):
            yield where, reason


def _misfit(name: str, given: str, kind: str) -> str:
    """Return why a query's column of DuckDB's type `given` is not what is declared, or nothing."""
    if kind == TIME:
        # A bare NULL has a type of its own, and fits every column.
        if given.startswith(("TIMESTAMP", "DATE")) or given == '"NULL"':
            return ""
        return f"column {name} is {given} and has to be a time; cast it to TIMESTAMPTZ"
    if kind == OUTCOME and given == "BOOLEAN":
        return ""
    try:
        declared.cast(name, given, "float64" if kind == OUTCOME else kind, "the query")
    except ConfigError as error:
        return (
            str(error) if kind != OUTCOME else f"column label is {given}; a label is 0, 1 or NULL"
        )
    return ""
