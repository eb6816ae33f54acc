"""Feast's offline store over our lake: pinned table versions, both times cut always, rows in = rows
out, order kept.

The path of a view's FileSource is the name of a lake table. Import this only inside functions: it
imports feast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from include.clock import utc_now
from include.config.settings import settings
from include.errors import ConfigError
from include.lake.sql import connect, quote
from include.lake.tables import Lake
from include.point_in_time.expiry import Calendar
from include.point_in_time.join import as_of_join

_pins: ContextVar[Mapping[str, int | None] | None] = ContextVar("pins", default=None)


@contextmanager
def pinned(versions: Mapping[str, int | None]) -> Iterator[None]:
    """Read the given lake tables at the given versions within the context (None: as they are
    now).
    """
    token = _pins.set(dict(versions))
    try:
        yield
    finally:
        _pins.reset(token)


class LakeOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Where the lake is; empty: where the settings say."""

    type: Literal["include.features.feast_offline_store.LakeOfflineStore"] = (
        "include.features.feast_offline_store.LakeOfflineStore"
    )
    lake: StrictStr = ""


class LakeRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """An answer that is computed when it is asked for, as Arrow."""

    def __init__(
        self,
        answer: Callable[[], pa.Table],
        *,
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._answer, self._full_feature_names, self._metadata = (
            answer,
            full_feature_names,
            metadata,
        )

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named `<view>__<feature>`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None: their code would be run from the registry."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Which features and keys were asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._answer()

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._answer().to_pandas()


class LakeOfflineStore(OfflineStore):  # type: ignore[misc]
    """Point-in-time reads of lake tables.

    A value is never returned before its created time, whatever Feast's flag says.
    """

    supports_filter_by_created_timestamp = True

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check that the source names a lake table; it need not exist before the first partition
        is computed.
        """
        Lake(_root(config)).uri(_table(data_source))

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Sequence[tuple[str, str]]:
        """Return the columns of a lake table with their Arrow types."""
        with connect() as con:
            Lake(_root(config)).scan(con, "source", _table(data_source))
            schema = con.sql("SELECT * FROM source LIMIT 0").to_arrow_table().schema
        return [(field.name, str(field.type)) for field in schema]

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """Return the entity frame with the features as known at each row's `event_timestamp`."""
        if entity_df is None or isinstance(entity_df, str):
            raise ConfigError(
                "the lake answers an entity frame (pandas) with event_timestamp; neither SQL nor "
                "a bare date range"
            )
        spine = pa.Table.from_pandas(entity_df, preserve_index=False)
        if "event_timestamp" not in spine.column_names:
            raise ConfigError(
                f"the entity frame has no event_timestamp; its columns are {spine.column_names}"
            )
        asked = [
            (view, _features_of(view, feature_refs), _join_key(view, registry, project))
            for view in feature_views
        ]

        def answer() -> pa.Table:
            result = spine
            with connect() as con:
                for index, (view, features, key) in enumerate(asked):
                    _scan(con, f"view_{index}", config, view.batch_source)
                    found = as_of_join(
                        con,
                        spine,
                        f"view_{index}",
                        key=key,
                        ttl=view.ttl or None,
                        calendar=_calendar(view),
                        columns=features,
                        own="own" in view.tags,
                    )
                    for name in features:
                        shown = (
                            f"{view.projection.name_to_use()}__{name}"
                            if full_feature_names
                            else name
                        )
                        result = result.append_column(shown, found.column(name))
            return result

        metadata = RetrievalMetadata(
            features=feature_refs, keys=sorted({key for _, _, key in asked})
        )
        return LakeRetrievalJob(answer, full_feature_names=full_feature_names, metadata=metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return each entity's newest row of the time range, ties to the greatest created time."""
        newest = ", ".join(
            f"{quote(name)} DESC" for name in (timestamp_field, created_timestamp_column) if name
        )
        keys = ", ".join(quote(name) for name in join_key_columns)
        last = f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest}) = 1"
        columns = [
            *join_key_columns,
            *feature_name_columns,
            timestamp_field,
            created_timestamp_column,
        ]
        return _pull(
            config,
            data_source,
            columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
            last,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return all rows of the time range."""
        columns = [
            *join_key_columns,
            *feature_name_columns,
            timestamp_field,
            created_timestamp_column,
        ]
        return _pull(
            config,
            data_source,
            columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
            "",
        )


def _pull(
    config: RepoConfig,
    source: DataSource,
    columns: Sequence[str | None],
    event: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
    more: str,
) -> RetrievalJob:
    """Cut both times at `end`.

    Raises: ConfigError: `end` lies in the future; a watermark there would hide rows that come
        before it.
    """
    if end is not None and _aware(end) > utc_now():
        raise ConfigError(
            f"end date {end} lies in the future; materialize up to the newest complete partition"
        )
    conditions = [f"{quote(event)} >= {_literal(start)}"] if start is not None else []
    if end is not None:
        conditions += [f"{quote(name)} <= {_literal(end)}" for name in (event, created) if name]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    chosen = ", ".join(quote(name) for name in columns if name)

    def answer() -> pa.Table:
        with connect() as con:
            _scan(con, "source", config, source)
            return con.sql(f"SELECT {chosen} FROM source {where} {more}").to_arrow_table()

    return LakeRetrievalJob(answer)


def _scan(con: Any, name: str, config: RepoConfig, source: DataSource | None) -> None:
    table = _table(source)
    Lake(_root(config)).scan(con, name, table, version=(_pins.get() or {}).get(table))


def _root(config: RepoConfig) -> str:
    return config.offline_store.lake or settings().lake_root


def _table(source: DataSource | None) -> str:
    if not isinstance(source, FileSource) or source.field_mapping:
        raise ConfigError(
            f"{source}: views of this store are over FileSource(path='<use "
            "case>/features/<table>'), no field mapping"
        )
    return str(source.path)


def _features_of(view: FeatureView, feature_refs: Sequence[str]) -> list[str]:
    prefix = f"{view.projection.name_to_use()}:"
    return [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]


def _calendar(view: FeatureView) -> Calendar | None:
    """Return the calendar that the registry keeps with a view; a view written by hand has none,
    its ttl is the clock's.
    """
    text = view.tags.get("calendar")
    return None if text is None else Calendar.from_text(text)


def _join_key(view: FeatureView, registry: BaseRegistry, project: str) -> str:
    keys = [registry.get_entity(name, project).join_key for name in view.entities]
    if len(keys) != 1:
        raise ConfigError(
            f"feature view {view.name} has the join keys {keys}; views of this store have exactly "
            "one"
        )
    mapped: str = view.projection.join_key_map.get(keys[0], keys[0])
    if mapped != keys[0]:
        raise ConfigError(
            f"feature view {view.name} maps {keys[0]} to {mapped}; name the column {keys[0]} in "
            "the entity frame"
        )
    return mapped


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _literal(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{_aware(moment).isoformat(sep=' ')}'"
