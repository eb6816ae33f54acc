"""Feast's offline store over our lake: a row out for each row in, and nothing from later.

Table versions can be pinned, both times are always cut, and rows keep their order. The path of a
view's FileSource is the name of a lake table. Import this only inside functions: it imports feast.
"""

from __future__ import annotations

from include.features import feast_unchecked  # noqa: F401 - before feast

# isort: split
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr
from sqlglot import exp

from include.clock import utc_now
from include.config.settings import settings
from include.errors import ConfigError
from include.lake.sql import connect
from include.lake.tables import Lake
from include.pipeline.lakes import open_lake
from include.point_in_time.expiry import Calendar
from include.point_in_time.join import as_of_join
from include.point_in_time.sql_parts import column, newest_first, table, timestamp, to_sql


class _Pins(NamedTuple):
    """Which versions of lake tables are read, and which partitions (None: all)."""

    versions: Mapping[str, int | None]
    keys: Sequence[str] | None


_pins: ContextVar[_Pins | None] = ContextVar("pins", default=None)


@contextmanager
def pinned(
    versions: Mapping[str, int | None], *, keys: Sequence[str] | None = None
) -> Iterator[None]:
    """Read lake tables at the given versions within the context; None: the present one.

    `keys` are the partitions to read (None: all): to open the files of a long history costs more
    than to join the few that decisions can see.
    """
    token = _pins.set(_Pins(dict(versions), keys))
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
        """Check that the source names a lake table, which need not be there yet."""
        _lake(config).uri(_lake_table(data_source))

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Sequence[tuple[str, str]]:
        """Return the columns of a lake table with their Arrow types."""
        with connect() as con:
            _lake(config).scan(con, "source", _lake_table(data_source))
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
        requests = [
            (view, _features_of(view, feature_refs), _join_key(view, registry, project))
            for view in feature_views
        ]

        def answer() -> pa.Table:
            result = spine
            with connect() as con:
                for index, (view, features, key) in enumerate(requests):
                    _scan(con, f"view_{index}", config, view.batch_source)
                    values = as_of_join(
                        con,
                        spine,
                        f"view_{index}",
                        key=key,
                        ttl=view.ttl or None,
                        calendar=_calendar(view),
                        columns=features,
                        own="own" in view.tags,
                    )
                    prefix = f"{view.projection.name_to_use()}__" if full_feature_names else ""
                    for name in features:
                        result = result.append_column(f"{prefix}{name}", values.column(name))
            return result

        metadata = RetrievalMetadata(
            features=feature_refs, keys=sorted({key for _, _, key in requests})
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
        times = [name for name in (timestamp_field, created_timestamp_column) if name]
        position = exp.Window(
            this=exp.RowNumber(),
            partition_by=[column(name) for name in join_key_columns],
            order=newest_first(*times),
        )
        names = [*join_key_columns, *feature_name_columns, *times]
        rows = _rows_between(names, times, start_date, end_date)
        return _pull(config, data_source, rows.qualify(position.eq(1)))

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
        times = [name for name in (timestamp_field, created_timestamp_column) if name]
        names = [*join_key_columns, *feature_name_columns, *times]
        return _pull(config, data_source, _rows_between(names, times, start_date, end_date))


def _rows_between(
    names: Sequence[str], times: Sequence[str], start: datetime | None, end: datetime | None
) -> exp.Select:
    """Return the query of columns of `source`: event time from `start` on, all times up to `end`.

    Raises:
        ConfigError: `end` lies in the future; a watermark there would hide rows that come before
            it.
    """
    if end is not None and _aware(end) > utc_now():
        raise ConfigError(
            f"end date {end} lies in the future; materialize up to the newest complete partition"
        )
    rows = exp.select(*(column(name) for name in names)).from_(table("source"))
    if start is not None:
        rows = rows.where(column(times[0]) >= timestamp(_aware(start)))
    if end is not None:
        rows = rows.where(*(column(name) <= timestamp(_aware(end)) for name in times))
    return rows


def _pull(config: RepoConfig, source: DataSource, rows: exp.Select) -> RetrievalJob:
    """Return the rows of a query over `source` when they are asked for."""

    def answer() -> pa.Table:
        with connect() as con:
            _scan(con, "source", config, source)
            return con.sql(to_sql(rows)).to_arrow_table()

    return LakeRetrievalJob(answer)


def _scan(con: Any, name: str, config: RepoConfig, source: DataSource | None) -> None:
    """Show the lake table of a source as a view, in its pinned version if there is one."""
    lake_table = _lake_table(source)
    pins = _pins.get() or _Pins({}, None)
    _lake(config).scan(con, name, lake_table, keys=pins.keys, version=pins.versions.get(lake_table))


def _lake(config: RepoConfig) -> Lake:
    """Return the lake that Feast's configuration names, else that of the installation."""
    named = config.offline_store.lake
    return Lake(named) if named else open_lake(settings())


def _lake_table(source: DataSource | None) -> str:
    """Return the lake table that a source names, or refuse a source of another kind."""
    if not isinstance(source, FileSource) or source.field_mapping:
        raise ConfigError(
            f"{source}: views of this store are over FileSource(path='<use "
            "case>/features/<table>'), no field mapping"
        )
    return str(source.path)


def _features_of(view: FeatureView, feature_refs: Sequence[str]) -> list[str]:
    """Return the features of a view among references `<view>:<feature>`."""
    prefix = f"{view.projection.name_to_use()}:"
    return [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]


def _calendar(view: FeatureView) -> Calendar | None:
    """Return the calendar that the registry keeps with a view.

    A view written by hand has none: its ttl counts by the clock.
    """
    text = view.tags.get("calendar")
    return None if text is None else Calendar.from_text(text)


def _join_key(view: FeatureView, registry: BaseRegistry, project: str) -> str:
    """Return the one column by which a view is joined."""
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
    """Return a moment with its zone; Feast's command line gives times without one, in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
