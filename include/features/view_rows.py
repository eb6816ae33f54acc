"""The rows of a feature view for a partition: computed from curated rows, then checked and typed.

A view with SQL is answered over the curated sources as known before the partition's `as_of`; a view
straight from a source takes the source's own rows that arrived in the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from types import TracebackType
from typing import TypeVar

import pyarrow as pa

from include.config.use_case import UseCase
from include.errors import ConfigError
from include.features.feature_sets import FeatureView
from include.features.typed_rows import column_types, typed_parts, typed_rows
from include.lake.sql import PARTITION, connect
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time import decisions, partitions
from include.point_in_time.curated import curated_schema, curated_table
from include.point_in_time.queries import tables_in
from include.point_in_time.views import AsOfViews, ask_in_lanes, lanes_for

AHEAD = 100_000
"""Curated rows that are asked for together, of partitions of few rows: a query costs milliseconds,
whatever it reads."""

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
        # By view version and partition: rows that were read with an earlier one's.
        self._ahead: dict[tuple[str, str], pa.Table] = {}
        self._groups: dict[str, dict[str, list[StageContext]]] = {}  # by source and partition
        self._lock = Lock()

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
                self._types[view.version] = column_types(as_of.query, relation)
            types = self._types[view.version]
            return typed_rows(as_of.query, relation, types, view, context)
        with self._lock:  # lanes ask at the same time
            if (view.version, context.key) not in self._ahead:
                self._read_ahead(view, names[0], context)
            return self._ahead.pop((view.version, context.key))

    def _read_ahead(self, view: FeatureView, name: str, context: StageContext) -> None:
        """Read a source's rows of a partition, and of those beside it as far as they are few.

        Raises:
            ConfigError: those of the partition itself are not what the view declares.
        """
        if name not in self._groups:
            self._groups[name] = self._group(name)
        together = self._groups[name][context.key]
        try:
            found = self._of_source(view, name, together)
        except ConfigError:
            if len(together) == 1:
                raise
            # It may be another one, which is refused in its turn: those before it stand.
            self._groups[name] = {each.key: [each] for each in self._contexts}
            found = self._of_source(view, name, [context])
        self._ahead |= {(view.version, key): rows for key, rows in found.items()}

    def _group(self, name: str) -> dict[str, list[StageContext]]:
        """Return for each partition which ones are read with it, by what is recorded of their rows.

        They are the same for each of them: lanes ask in any order.
        """
        groups: dict[str, list[StageContext]] = {}
        group, rows = list[StageContext](), AHEAD + 1
        for context in self._contexts:
            result = context.result("validate_data")
            sources = ValidationOutputs.of(result).sources if result is not None else {}
            # Of what is not recorded nobody knows how much it is.
            count = sources[name].rows if name in sources else AHEAD + 1
            if rows + count > AHEAD:
                group, rows = [], 0
            group.append(context)
            groups[context.key] = group
            rows += count
        return groups

    def _of_source(
        self, view: FeatureView, name: str, contexts: Sequence[StageContext]
    ) -> dict[str, pa.Table]:
        """Return the rows of a view straight from a source, by partition."""
        source = self._use_case.sources[name]
        with connect() as con:
            self._lake.scan(
                con,
                "curated",
                curated_table(self._lake, self._use_case, name),
                keys=[context.key for context in contexts],
                schema=curated_schema(source),
            )

            def ask(sql: str) -> pa.Table:
                return con.sql(sql).to_arrow_table()

            types = column_types(ask, "curated")
            if PARTITION not in types:  # no table yet, so no row
                return {context.key: view.schema.empty_table() for context in contexts}
            standing = decisions.standing_rows(source, view.key, "curated", by=PARTITION)
            return typed_parts(ask, f"({standing})", types, view, contexts)

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
