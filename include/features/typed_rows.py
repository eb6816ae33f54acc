"""A relation's rows as those of a feature view: declared columns and types, checked and sorted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.errors import ConfigError
from include.features.feature_sets import FeatureView
from include.lake.sql import PARTITION, quote, text_literal
from include.pipeline.declared import cast
from include.pipeline.stage import StageContext
from include.point_in_time.curated import CREATED, EVENT
from include.point_in_time.sql_parts import timestamp_literal

TIMES = (EVENT, CREATED)
_START, _END, _KNOWN = "__arrival_start", "__as_of", "__known_from"

Ask = Callable[[str], pa.Table]


def column_types(ask: Ask, relation: str) -> dict[str, str]:
    """Return the columns of a relation with DuckDB's types."""
    described = ask(f"DESCRIBE SELECT * FROM {relation}")
    return dict(
        zip(described["column_name"].to_pylist(), described["column_type"].to_pylist(), strict=True)
    )


def typed_rows(
    ask: Ask, relation: str, types: Mapping[str, str], view: FeatureView, context: StageContext
) -> pa.Table:
    """Return a relation's rows with exactly the declared columns and types, checked and sorted."""
    where = f"{context.use_case.name}: view {view.name}"
    columns = _columns(types, view, where)
    known_from = timestamp_literal(context.as_of + view.availability)
    if view.grain == "snapshot":
        times = [timestamp_literal(context.as_of), known_from]
    else:
        start, end = (
            timestamp_literal(context.period.arrival_start),
            timestamp_literal(context.as_of),
        )
        relation = _arrived_rows(relation, view, start, end)
        times = _times(view, known_from)
    rows = _sorted_rows(ask, relation, _with_times(columns, times), _order(view), view, where)
    _refuse_bad_keys(rows, where, view)
    return rows


def typed_parts(
    ask: Ask,
    relation: str,
    types: Mapping[str, str],
    view: FeatureView,
    contexts: Sequence[StageContext],
) -> dict[str, pa.Table]:
    """Return as `typed_rows` does the rows of some partitions that a relation of events holds."""
    where = f"{contexts[0].use_case.name}: view {view.name}"
    bounds = ", ".join(
        f"({text_literal(context.key)}, {timestamp_literal(context.period.arrival_start)}, "
        f"{timestamp_literal(context.as_of)}, "
        f"{timestamp_literal(context.as_of + view.availability)})"
        for context in contexts
    )
    relation = (
        f"(SELECT * FROM {relation} JOIN (VALUES {bounds}) AS __bounds"
        f"({PARTITION}, {_START}, {_END}, {_KNOWN}) USING ({PARTITION}))"
    )
    columns = _with_times(_columns(types, view, where), _times(view, _KNOWN))
    rows = _sorted_rows(
        ask,
        _arrived_rows(relation, view, _START, _END, by=(PARTITION,)),
        [*columns, PARTITION],
        [PARTITION, *_order(view)],
        view,
        where,
    )
    counts = {
        pair["values"]: pair["counts"] for pair in pc.value_counts(rows[PARTITION]).to_pylist()
    }
    rows, start, parts = rows.drop_columns([PARTITION]), 0, {}
    for key in sorted(context.key for context in contexts):
        parts[key] = rows.slice(start, counts.get(key, 0))
        start += len(parts[key])
        _refuse_bad_keys(parts[key], where, view)
    return parts


def _columns(types: Mapping[str, str], view: FeatureView, where: str) -> list[str]:
    """Return the expressions of the key and the features in their declared types.

    Raises:
        ConfigError: the relation lacks one, or a time.
    """
    declared = {view.key: view.key_type, **view.columns}
    required = (*declared, *(TIMES if view.grain == "event" else ()))
    missing = [name for name in required if name not in types]
    if missing:
        raise ConfigError(
            f"{where}: no column {missing} among {list(types)}; add it to the SELECT, or correct "
            "the YAML"
        )
    return [
        f"{cast(name, types[name], kind, where)} AS {quote(name)}"
        for name, kind in declared.items()
    ]


def _times(view: FeatureView, known_from: str) -> list[str]:
    """Return the expressions of an event view's two times."""
    times = [f"CAST({name} AS TIMESTAMPTZ)" for name in TIMES]
    # Known from the as_of of the partition in which it arrived, as a snapshot is.
    if view.visible == "at_as_of":
        times[1] = known_from
    return times


def _with_times(columns: Sequence[str], times: Sequence[str]) -> list[str]:
    """Return key, two times, features: the order of the view's schema."""
    named = [f"{time} AS {name}" for time, name in zip(times, TIMES, strict=True)]
    return [columns[0], *named, *columns[1:]]


def _order(view: FeatureView) -> list[str]:
    """Return by what rows are sorted: every column, so that rows that are equal in key and times
    come in one order, always; a snapshot has one row a key, or is refused.
    """
    return [view.key] if view.grain == "snapshot" else [view.key, *TIMES, *view.columns]


def _sorted_rows(
    ask: Ask,
    relation: str,
    columns: Sequence[str],
    order: Sequence[str],
    view: FeatureView,
    where: str,
) -> pa.Table:
    """Return the columns of a relation in the view's types, and what stands behind them."""
    try:
        rows = ask(
            f"SELECT {', '.join(columns)} FROM {relation} ORDER BY {', '.join(map(quote, order))}"
        )
        behind = [rows.schema.field(place) for place in range(len(view.schema), len(rows.schema))]
        return rows.cast(pa.schema([*view.schema, *behind]))
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"{where}: a value does not fit its column ({str(error).splitlines()[0]}); widen the "
            "type"
        ) from None


def _arrived_rows(
    relation: str, view: FeatureView, start: str, end: str, by: Sequence[str] = ()
) -> str:
    """Return the relation of the rows that arrived from `start` until `end`, two expressions.

    Of an at_as_of view it has one row of each entity and moment: such rows get one created time, so
    the one that stands is chosen here, the newest, as the join would; `by` are columns besides.
    """
    arrived = f"SELECT * FROM {relation} WHERE {CREATED} >= {start} AND {CREATED} < {end}"
    if view.visible == "at_as_of":
        newest_first = ", ".join(
            [f"{CREATED} DESC", *(f"{quote(name)} DESC NULLS LAST" for name in view.columns)]
        )
        of_one = ", ".join([*by, quote(view.key), EVENT])
        arrived += f" QUALIFY row_number() OVER (PARTITION BY {of_one} ORDER BY {newest_first}) = 1"
    return f"({arrived})"


def _refuse_bad_keys(rows: pa.Table, where: str, view: FeatureView) -> None:
    """Refuse rows without an entity, and two rows of one entity in a snapshot."""
    entities = rows.column(view.key)
    if entities.null_count:
        raise ConfigError(
            f"{where}: {entities.null_count} rows have no {view.key}; leave them out in the SQL"
        )
    # Rows come in order of their key.
    doubled = pc.any(pc.equal(entities.slice(1), entities.slice(0, max(0, len(rows) - 1)))).as_py()
    if view.grain == "snapshot" and doubled:
        most_rows_first = sorted(
            (pair["counts"], pair["values"]) for pair in pc.value_counts(entities).to_pylist()
        )[::-1]
        shown = ", ".join(
            f"{key} ({count} rows)" for count, key in most_rows_first[:3] if count > 1
        )
        raise ConfigError(
            f"{where}: a snapshot has one row an entity, but {shown}; GROUP BY {view.key} in the "
            "SQL"
        )
