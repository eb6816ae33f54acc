"""All entities' features at a moment, over all partitions up to it: who is online, who is alive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.durations import midnight
from include.config.use_case import UseCase
from include.features.feature_sets import FeatureSet, FeatureView
from include.features.lake_views import scan_arrived
from include.lake.sql import TIMESTAMP, connect, quote
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.point_in_time.expiry import REMEMBERED, Calendar
from include.point_in_time.join import as_of_join
from include.point_in_time.sql_parts import interval_literal, timestamp_literal

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
# A ttl of centuries, remembered several times over, would leave DuckDB's calendar: it is cut here.
LONGEST_TTL = timedelta(days=100_000)


def entity_frame_at(
    lake: Lake,
    use_case: UseCase,
    feature_set: FeatureSet,
    as_of: datetime,
    *,
    versions: Mapping[str, int | None] | None = None,
) -> pa.Table:
    """Return every entity's features as a decision at `as_of` (+ availability) sees them.

    Columns: entity key, event_timestamp, the features in order; sorted by key. `event_timestamp` +
    the set's `ttl` is when the first of the row's views expires: for views of one ttl, the event
    time of the oldest. A view that has expired is null, and the row stays, so that stale can be
    told from unknown, until each view's newest row is older than `expiry.REMEMBERED` ttls.
    """
    frame = answers_at(lake, use_case, feature_set, as_of, versions=versions)
    return frame.select([feature_set.key, "event_timestamp", *feature_set.feature_types])


def population_at(
    lake: Lake,
    use_case: UseCase,
    feature_set: FeatureSet,
    as_of: datetime,
    *,
    versions: Mapping[str, int | None] | None = None,
) -> pa.Table:
    """Return the entities for which a view is alive at `as_of`, with all features.

    Drift compares these. Columns: entity key, the features, and for each view whether it is alive
    (`alive_column`).
    """
    frame = answers_at(lake, use_case, feature_set, as_of, versions=versions)
    rows = frame.select([feature_set.key, *feature_set.feature_types])
    alive_by_view = _alive(frame, use_case, feature_set, as_of)
    for view in feature_set.views:
        rows = rows.append_column(alive_column(view), alive_by_view[view.name])
    return rows.filter(_in_any(alive_by_view))


def living_frame_at(
    lake: Lake, use_case: UseCase, feature_set: FeatureSet, as_of: datetime
) -> pa.Table:
    """Return the rows of `entity_frame_at` of the entities for which a view is alive at `as_of`.

    Of who is only remembered, to tell stale from unknown, every feature is null.
    """
    frame = answers_at(lake, use_case, feature_set, as_of)
    rows = frame.select([feature_set.key, "event_timestamp", *feature_set.feature_types])
    return rows.filter(_in_any(_alive(frame, use_case, feature_set, as_of)))


def _alive(
    frame: pa.Table, use_case: UseCase, feature_set: FeatureSet, as_of: datetime
) -> dict[str, pa.Array]:
    """Return for which rows of `answers_at` each view is alive, by its name."""
    moment = as_of + max(view.availability for view in feature_set.views)
    horizon = pa.scalar(
        (Calendar.of(use_case).horizon(moment) - _EPOCH) // _MICROSECOND, pa.int64()
    )
    alive = {}
    for view in feature_set.views:
        newest = frame.column(newest_column(view)).cast(TIMESTAMP).cast(pa.int64())
        age = pc.subtract(horizon, newest)
        # An entity without a row of the view has no age: it is not alive there.
        young = pc.less_equal(age, view.ttl // _MICROSECOND)
        alive[view.name] = pc.fill_null(young, False).combine_chunks()
    return alive


def _in_any(alive_by_view: Mapping[str, pa.Array]) -> pa.Array:
    return reduce(pc.or_, alive_by_view.values())


def alive_column(view: FeatureView) -> str:
    """Return the column of `population_at` that says whether a view is alive."""
    return f"__alive_{view.name}"


def newest_column(view: FeatureView) -> str:
    """Return the column of `answers_at` that holds the event time of a view's newest row."""
    return f"__newest_{view.name}"


def answers_at(
    lake: Lake,
    use_case: UseCase,
    feature_set: FeatureSet,
    as_of: datetime,
    *,
    versions: Mapping[str, int | None] | None = None,
    keys: Sequence[str] | None = None,
    entities: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows of `entity_frame_at` with the event time of each view's newest row.

    Its column is `newest_column`. Who has no view whose newest row is younger than
    `expiry.REMEMBERED` of its ttls is left out: nobody is remembered for ever. `keys` are the
    partitions to read (None: all of the tables), `entities` those to answer for, by their keys as
    text (None: all).
    """
    moment = as_of + max(view.availability for view in feature_set.views)
    calendar = Calendar.of(use_case)
    key = feature_set.key
    since = _first_partition(use_case, feature_set, calendar.horizon(moment))
    with connect() as con:
        for index, view in enumerate(feature_set.views):
            table = view.table(use_case.name)
            scan_arrived(
                con,
                lake,
                f"view_{index}",
                table,
                use_case,
                as_of,
                version=(versions or {}).get(table),
                schema=view.schema,
                keys=keys,
                since=since,
            )
        only = ""
        if entities is not None:
            con.register("__only", pa.table({"entity": pa.array(entities, pa.string())}))
            only = f"AND CAST({quote(key)} AS VARCHAR) IN (SELECT entity FROM __only)"
        query = _remembered_entities(feature_set, moment, calendar.horizon(moment), only)
        frame = con.sql(query).to_arrow_table()
        moments = pa.array(
            np.full(len(frame), moment.replace(tzinfo=None), dtype="datetime64[us]")
        ).cast(TIMESTAMP)
        asked = pa.table({key: frame.column(0), "event_timestamp": moments})
        for index, view in enumerate(feature_set.views):
            features = as_of_join(
                con,
                asked,
                f"view_{index}",
                key=key,
                ttl=view.ttl,
                calendar=calendar,
                columns=list(view.columns),
            )
            for name in view.columns:
                frame = frame.append_column(name, features.column(name))
    return frame


def _first_partition(use_case: UseCase, feature_set: FeatureSet, horizon: datetime) -> str:
    """Return the oldest partition with rows that are alive, or remembered, at a horizon.

    No row's event time lies behind the `as_of` of its partition, since the contract refuses what
    is in the future. So a night reads as many files whatever the history.
    """
    spans = [max(view.ttl, REMEMBERED * min(view.ttl, LONGEST_TTL)) for view in feature_set.views]
    # A ttl of centuries would leave Python's calendar, so none reaches further than the history.
    since_first = max(timedelta(0), horizon - midnight(use_case.history.first))
    oldest = horizon - min(max(spans), since_first)
    # A microsecond less: a row may lie on the very `as_of` of the partition before.
    return partitions.key_of(use_case, oldest - _MICROSECOND)


def _remembered_entities(
    feature_set: FeatureSet, moment: datetime, horizon: datetime, only: str
) -> str:
    """Return the query of the entities that are remembered, sorted by key.

    Its columns are the key, the event time from which the set's ttl counts, and each view's newest
    event time. It reads the relations `view_0`, `view_1`, ...; `only` is a further condition.
    """
    key, now = quote(feature_set.key), timestamp_literal(moment)
    oldest = _remembered_since(horizon, max(view.ttl for view in feature_set.views))
    newest_of_views = [
        f"""
            SELECT {key} AS __entity,
                {index} AS __view,
                max(event_timestamp) AS __newest,
                max(event_timestamp) + {interval_literal(view.ttl)} AS __expires,
                max(event_timestamp) >= {_remembered_since(horizon, view.ttl)} AS __remembered
            FROM view_{index}
            WHERE event_timestamp <= {now} AND created_timestamp <= {now}
                AND event_timestamp >= {oldest} {only}
            GROUP BY 1
        """
        for index, view in enumerate(feature_set.views)
    ]
    newest_columns = "".join(
        f""",
            max(__newest) FILTER (__view = {index}) AS {quote(newest_column(view))}"""
        for index, view in enumerate(feature_set.views)
    )
    return f"""
        SELECT __entity AS {key},
            min(__expires) - {interval_literal(feature_set.ttl)} AS event_timestamp{newest_columns}
        FROM ({"UNION ALL".join(newest_of_views)})
        GROUP BY 1
        HAVING bool_or(__remembered)
        ORDER BY 1
    """


def _remembered_since(horizon: datetime, ttl: timedelta) -> str:
    """Return the oldest moment whose rows are remembered, as an expression."""
    return f"{timestamp_literal(horizon)} - {interval_literal(REMEMBERED * min(ttl, LONGEST_TTL))}"
