"""Raw rows as tables: joined, told apart by a checksum or a digest, and one row in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from include.config.use_case_sources import Source
from include.ingestion.columns import ARRIVED, FILE, ROW
from include.lake.digests import digest
from include.lake.sql import connect, quote

_PART = "__part"  # no source has a column whose name begins so


def checksum(rows: pa.Table) -> str:
    """Return a quick checksum of rows, whatever their order.

    Rows of unequal checksums differ; a checksum is no proof of equality, so where equality decides
    what is kept the rows themselves are compared (`row_comparison`).
    """
    return checksums([rows])[0]


def checksums(parts: Sequence[pa.Table]) -> list[str]:
    """Return the checksum of each of some tables; those of equal columns are asked together."""
    answers = ["0"] * len(parts)
    groups: dict[pa.Schema, list[int]] = {}
    bodies = [_without(part, (FILE, ROW, ARRIVED)) for part in parts]
    for number, body in enumerate(bodies):
        if len(body):
            groups.setdefault(body.schema.remove_metadata(), []).append(number)
    if not groups:
        return answers
    with connect() as con:
        for schema, numbers in groups.items():
            lengths = [len(bodies[number]) for number in numbers]
            rows = pa.concat_tables([bodies[number].cast(schema) for number in numbers])
            con.register("body", rows.append_column(_PART, pa.array(np.repeat(numbers, lengths))))
            columns = ", ".join(quote(name) for name in sorted(schema.names))
            # A sum of hashes is the same for every order of the rows, an xor would cancel doubled
            # rows.
            query = f"SELECT {_PART}, count(*) || ':' || sum(hash({columns})) FROM body GROUP BY 1"
            for number, answer in con.execute(query).fetchall():
                answers[number] = str(answer)
    return answers


def partition_digest(rows: pa.Table, source: Source) -> str:
    """Return the digest of a partition's raw rows: the source's columns and the arrival.

    Neither the file nor the number of the row in it counts: rows that move to another file are the
    same rows.
    """
    return _digest(_without(rows, (FILE, ROW)), source)


def version_digest(rows: pa.Table, source: Source) -> str:
    """Return the digest of a static source's version: the source's columns alone.

    The moment from which it is known does not count: the same content is the same version.
    """
    return _digest(_without(rows, (FILE, ROW, ARRIVED)), source)


def join_rows(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of some tables as one; a column that one of them lacks is null there."""
    filled = [part for part in parts if len(part)] or parts[:1]
    return filled[0] if len(filled) == 1 else pa.concat_tables(filled, promote_options="default")


def drop_unfilled(rows: pa.Table, keep: Collection[str] = ()) -> pa.Table:
    """Return rows without the columns that none of them fills, except those to keep.

    A partition has the columns of its own rows: one that appears in a later delivery changes no
    digest of an earlier partition.
    """
    return rows.select(
        [
            name
            for name in rows.column_names
            if name in keep or rows.column(name).null_count < len(rows)
        ]
    )


def describe_row(row: Mapping[str, Any]) -> str:
    """Return a raw row in one line of at most 302 characters."""
    values = ", ".join(
        f"{name}={str(value)[:40]}"
        for name, value in row.items()
        if value is not None and name not in (ROW, ARRIVED)
    )
    return "{" + values[:300] + "}"


def _without(rows: pa.Table, columns: Collection[str]) -> pa.Table:
    return rows.drop_columns([name for name in columns if name in rows.column_names])


def _digest(body: pa.Table, source: Source) -> str:
    return digest(body, sort_by=[name for name in source.key if name in body.column_names])
