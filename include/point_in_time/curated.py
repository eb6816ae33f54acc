"""Columns and names of the lake tables that follow from the use case: curated sources, labels.

A table's name carries the digest of its columns and types, so a changed contract writes a table of
its own and no stored value is ever cast. A table without the digest, written before names had one,
is the version that has these very types.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.lake.column_types import plain_type
from include.lake.sql import PARTITION, TIMESTAMP
from include.lake.tables import Lake

EVENT, CREATED = "event_timestamp", "created_timestamp"
ARROW_TYPES = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": TIMESTAMP,
    "date": pa.date32(),
}


def curated_schema(source: Source) -> pa.Schema:
    """Return the columns of a curated source: the declared ones, typed, then the two times."""
    fields = [
        (name, ARROW_TYPES[column.type])
        for name, column in source.columns.items()
        if name not in (EVENT, CREATED)
    ]
    return pa.schema([*fields, (EVENT, TIMESTAMP), (CREATED, TIMESTAMP)])


def label_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of the table `labels`.

    They are the entity key, the decision's time, the two times of the outcome, and the label.
    """
    times = [(name, TIMESTAMP) for name in (EVENT, "label_timestamp", CREATED)]
    return pa.schema(
        [(use_case.entity.key, ARROW_TYPES[use_case.entity.type]), *times, ("label", pa.float64())]
    )


def curated_table(lake: Lake, use_case: UseCase, source: str) -> str:
    """Return the lake table that holds a source's curated rows of today's contract."""
    return _versioned(
        lake, f"{use_case.name}/curated/{source}", curated_schema(use_case.sources[source])
    )


def label_table(lake: Lake, use_case: UseCase) -> str:
    """Return the lake table that holds the use case's labels."""
    return _versioned(lake, f"{use_case.name}/labels", label_schema(use_case))


def training_table(lake: Lake, use_case: UseCase, schema: pa.Schema) -> str:
    """Return the lake table that holds training sets of some columns."""
    return _versioned(lake, f"{use_case.name}/training_set", schema)


def scores_table(lake: Lake, use_case: UseCase, schema: pa.Schema) -> str:
    """Return the lake table that holds batch scores of some columns."""
    return _versioned(lake, f"{use_case.name}/scores", schema)


def _versioned(lake: Lake, base: str, schema: pa.Schema) -> str:
    """Return the name of the table that has these columns, under `base`.

    The order of columns and whether they may be null change no value, and no name.
    """
    description, unversioned = _description(schema), lake.schema(base)
    if unversioned is not None and _description(unversioned) == description:
        return base
    return f"{base}@{hashlib.sha256(description.encode()).hexdigest()[:10]}"


def _description(schema: pa.Schema) -> str:
    """Return names and types of a schema as one text, whatever the order of its columns."""
    return "\n".join(
        sorted(
            f"{field.name}:{plain_type(field.type)}" for field in schema if field.name != PARTITION
        )
    )


def curated_name(source: Source, column: str) -> str:
    """Return the name that a source's column has in its curated rows."""
    if column in source.columns and column not in (EVENT, CREATED):
        return column
    if source.kind == "events" and column == source.event_time:
        return EVENT
    return CREATED if source.kind == "events" and column == source.arrival else column


def record_key(source: Source) -> list[str]:
    """Return the curated columns that name a record of a source."""
    return [curated_name(source, name) for name in source.key]
