"""The types under which the lake keeps values: none is ever changed to fit a column."""

from __future__ import annotations

import pyarrow as pa

from include.errors import EvergreenError
from include.lake.sql import PARTITION, TIMESTAMP


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type under which the lake keeps all values of a type as they are."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return TIMESTAMP
    return pa.date32() if pa.types.is_date(kind) else kind


def storable(rows: pa.Table, key: str, table: str) -> pa.Table:
    """Return rows of a partition in the types that are kept, with the column `partition`.

    Refused is a type whose values Delta would change, or cannot hold. A column without any value
    has no type of its own until there is one: it is text.

    Raises:
        EvergreenError: a column has such a type; names it.
    """
    if PARTITION in rows.column_names:
        rows = rows.drop_columns([PARTITION])
    for index, field in enumerate(rows.schema):
        kind = plain_type(field.type)
        lossy = (
            pa.types.is_unsigned_integer(kind)
            or pa.types.is_time(kind)
            or pa.types.is_duration(kind)
        )
        if lossy or pa.types.is_float16(kind) or kind == pa.timestamp("ns"):
            raise EvergreenError(
                f"{table}: column {field.name} is {kind}, which no table keeps as it is; give it "
                "another type"
            )
        if kind != field.type:
            try:
                rows = rows.set_column(index, field.name, rows.column(index).cast(kind))
            except pa.ArrowInvalid as error:  # nanoseconds that microseconds do not hold
                raise EvergreenError(
                    f"{table}: column {field.name} is {field.type} and does not fit {kind}: {error}"
                ) from None
    return rows.append_column(PARTITION, pa.repeat(pa.scalar(key, pa.string()), len(rows)))


def check_types(given: pa.Schema, stored: pa.Schema, where: str) -> None:
    """Refuse columns of another type than in the table: Delta would cast them without a word."""
    types = {field.name: field.type for field in stored}
    other = [
        f"{field.name} is {field.type}, in the table {types[field.name]}"
        for field in given
        if field.name in types
        and plain_type(types[field.name]) != field.type
        and not pa.types.is_nested(field.type)
    ]
    if other:
        raise EvergreenError(
            f"{where} is not written, its columns have other types than the table's: "
            f"{'; '.join(other)}. A table whose columns follow from the use case carries their "
            "digest in its name; this one lacks it, report this"
        )
