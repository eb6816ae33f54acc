"""The rows of a feature view for a partition: computed from curated rows, then checked and typed.

A view with SQL is answered over the curated sources as known before the partition's `as_of`; a view
straight from a source takes the source's own rows that arrived in the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.features.feature_sets import FeatureView
from include.lake.sql import connect, quote
from include.pipeline.declared import cast
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time import decisions, partitions
from include.point_in_time.curated import CREATED, EVENT, curated_schema, curated_table
from include.point_in_time.queries import tables_in
from include.point_in_time.sql_parts import timestamp_literal
from include.point_in_time.views import AsOfViews, ask_in_lanes, lanes_for

TIMES = (EVENT, CREATED)

Ask = Callable[[str], pa.Table]
Answer = TypeVar("Answer")


def sources_of(use_case: UseCase, view: FeatureView) -> list[str]:
    """Return the sources that a view reads.

    Raises:
        ConfigError: its SQL cannot be parsed, or reads what is no source.
    """
    if view.source is not None:
        names = frozenset({view.source})
    else:
        try:
            names = tables_in(str(view.sql))
        except ConfigError as error:
            raise ConfigError(f"{use_case.name}: view {view.name}: the query {error}") from None
    unknown = sorted(names - set(use_case.sources))
    if unknown:
        raise ConfigError(
            f"{use_case.name}: view {view.name} reads {unknown}; sources are "
            f"{sorted(use_case.sources)}"
        )
    return sorted(names)


class ViewRows:
    """The rows of views in many partitions, over curated rows that are loaded once for all."""

    def __init__(self, contexts: Sequence[StageContext], views: Sequence[FeatureView]) -> None:
        self._contexts, self._views = contexts, views
        self._use_case, self._lake = contexts[0].use_case, contexts[0].lake
        self._as_of_views: AsOfViews | None = None
        # By view version: the columns of a query are the same for every partition.
        self._types: dict[str, dict[str, str]] = {}

    def __enter__(self) -> ViewRows:
        readable: list[FeatureView] = []
        names: set[str] = set()
        for view in self._views:
            if view.sql is None:
                continue
            try:
                names |= set(sources_of(self._use_case, view))
            except ConfigError:
                continue  # raised again by `of`, where the stage can name the view
            readable.append(view)
        if readable:
            keys = {
                key
                for context in self._contexts
                for view in readable
                for key in partitions.lookback(self._use_case, context.key, view.lookback)
            }
            self._as_of_views = AsOfViews(
                connect(alone=True),
                self._lake,
                self._use_case,
                keys=sorted(keys),
                sources=sorted(names),
                versions=self._static_versions(names),
                lanes=lanes_for(len(self._contexts)),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._as_of_views is not None:
            self._as_of_views.__exit__(kind, error, trace)

    def each(
        self, ask: Callable[[AsOfViews | None, StageContext], Answer]
    ) -> Iterator[tuple[StageContext, Answer]]:
        """Yield every partition with the answer to a question that `of` is part of, in order.

        Several partitions are asked at a time, each with its own views as of its moment.
        """
        if self._as_of_views is None:
            yield from ((context, ask(None, context)) for context in self._contexts)
            return
        yield from zip(
            self._contexts, ask_in_lanes(self._as_of_views, self._contexts, ask), strict=True
        )

    def of(self, view: FeatureView, context: StageContext, as_of: AsOfViews | None) -> pa.Table:
        """Return a view's rows for one partition, in the columns of its schema, sorted.

        `as_of` are the views that its query is asked of.

        Raises:
            ConfigError: its SQL fails, or does not give what the view declares.
        """
        names = sources_of(self._use_case, view)
        if view.sql is not None:
            assert as_of is not None
            as_of.at(context.period, view.lookback)
            # On lines of its own: the query may end with a comment.
            relation = f"(\n{view.sql}\n)"
            if view.version not in self._types:
                self._types[view.version] = _column_types(as_of.query, relation)
            types = self._types[view.version]
            return _typed_rows(as_of.query, relation, types, view, context)
        with connect() as con:
            source = self._use_case.sources[names[0]]
            self._lake.scan(
                con,
                "curated",
                curated_table(self._lake, self._use_case, names[0]),
                keys=[context.key],
                schema=curated_schema(source),
            )
            relation = f"({decisions.standing_rows(source, view.key, 'curated')})"

            def ask(sql: str) -> pa.Table:
                return con.sql(sql).to_arrow_table()

            return _typed_rows(ask, relation, _column_types(ask, relation), view, context)

    def _static_versions(self, names: Iterable[str]) -> dict[str, set[str]]:
        """Return the versions of static sources that the partitions know, by source.

        A source whose version is not on record for some partition is left out: it is loaded whole.
        """
        recorded_sources = [
            ValidationOutputs.of(result).sources
            if (result := context.result("validate_data"))
            else {}
            for context in self._contexts
        ]
        static = [name for name in names if self._use_case.sources[name].kind == "static"]
        versions_by_source = {
            name: {
                optional(sources[name].version) if name in sources else None
                for sources in recorded_sources
            }
            for name in static
        }
        return {
            name: {str(version) for version in versions}
            for name, versions in versions_by_source.items()
            if None not in versions
        }


def _column_types(ask: Ask, relation: str) -> dict[str, str]:
    """Return the columns of a relation with DuckDB's types."""
    described = ask(f"DESCRIBE SELECT * FROM {relation}")
    return dict(
        zip(described["column_name"].to_pylist(), described["column_type"].to_pylist(), strict=True)
    )


def _typed_rows(
    ask: Ask, relation: str, types: Mapping[str, str], view: FeatureView, context: StageContext
) -> pa.Table:
    """Return a relation's rows with exactly the declared columns and types, checked and sorted."""
    where = f"{context.use_case.name}: view {view.name}"
    declared = {view.key: view.key_type, **view.columns}
    required = (*declared, *(TIMES if view.grain == "event" else ()))
    missing = [name for name in required if name not in types]
    if missing:
        raise ConfigError(
            f"{where}: no column {missing} among {list(types)}; add it to the SELECT, or correct "
            "the YAML"
        )
    columns = [
        f"{cast(name, types[name], kind, where)} AS {quote(name)}"
        for name, kind in declared.items()
    ]
    known_from = timestamp_literal(context.as_of + view.availability)
    if view.grain == "snapshot":
        times = [timestamp_literal(context.as_of), known_from]
    else:
        times = [f"CAST({name} AS TIMESTAMPTZ)" for name in TIMES]
        relation = _arrived_rows(relation, view, context)
        # Known from the as_of of the partition in which it arrived, as a snapshot is.
        if view.visible == "at_as_of":
            times[1] = known_from
    # The key comes first, then the two times, then the features: the order of the view's schema.
    columns[1:1] = [f"{time} AS {name}" for time, name in zip(times, TIMES, strict=True)]
    # By every column, so that rows that are equal in key and times come in one order, always; a
    # snapshot has one row a key, or is refused.
    by = [view.key] if view.grain == "snapshot" else [view.key, *TIMES, *view.columns]
    order = ", ".join(map(quote, by))
    try:
        rows = ask(f"SELECT {', '.join(columns)} FROM {relation} ORDER BY {order}").cast(
            view.schema
        )
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"{where}: a value does not fit its column ({str(error).splitlines()[0]}); widen the "
            "type"
        ) from None
    _refuse_bad_keys(rows, where, view)
    return rows


def _arrived_rows(relation: str, view: FeatureView, context: StageContext) -> str:
    """Return the relation of the rows that arrived in the partition.

    Of an at_as_of view it has one row of each entity and moment: such rows get one created time, so
    the one that stands is chosen here, the newest, as the join would.
    """
    start = timestamp_literal(context.period.arrival_start)
    end = timestamp_literal(context.as_of)
    arrived = f"SELECT * FROM {relation} WHERE {CREATED} >= {start} AND {CREATED} < {end}"
    if view.visible == "at_as_of":
        newest_first = ", ".join(
            [f"{CREATED} DESC", *(f"{quote(name)} DESC NULLS LAST" for name in view.columns)]
        )
        arrived += (
            " QUALIFY row_number() OVER ("
            f"PARTITION BY {quote(view.key)}, {EVENT} ORDER BY {newest_first}) = 1"
        )
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
