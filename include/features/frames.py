"""Frames for models: the spine of mature labels, the training frame, and all entities' features at
a moment.

Training, evaluation and scoring all get their rows here, so they see what serving would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.config.durations import midnight, period_start
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import EvergreenError
from include.lake.sql import TIMESTAMP, connect, quote
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.point_in_time.curated import label_schema, label_table
from include.point_in_time.expiry import REMEMBERED, Calendar
from include.point_in_time.join import as_of_join
from include.point_in_time.views import literal

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

if TYPE_CHECKING:
    from include.features.feature_sets import FeatureSet, FeatureView
    from include.records.records import Records


@dataclass(frozen=True)
class Spine:
    """Mature decisions with their outcome as known at `as_of`.

    `rows`: entity key, event_timestamp (the decision), label_timestamp, label; by event time, then
    key. `mature`: every decision that is past the label's delay, with key, event_timestamp,
    `__censored` (it has no known outcome), `__restated` (its known outcome replaced an earlier
    one), in the same order. `immature` decisions are younger than the delay.
    """

    rows: pa.Table
    mature: pa.Table
    immature: int

    @property
    def censored(self) -> int:
        """Number of mature decisions that have no known outcome."""
        return int(pc.sum(self.mature.column("__censored")).as_py() or 0)

    @property
    def restated(self) -> int:
        """Number of rows whose known outcome replaced an earlier one."""
        return int(pc.sum(self.mature.column("__restated")).as_py() or 0)

    @property
    def censored_share(self) -> float:
        """Share of the mature decisions that have no known outcome."""
        return self.censored / len(self.mature) if len(self.mature) else 0.0


def spine(
    lake: Lake,
    use_case: UseCase,
    as_of: datetime,
    *,
    version: int | None = None,
    since: datetime | None = None,
) -> Spine:
    """Return the decisions that are mature at `as_of`, each with the newest outcome known before
    it.

    A row without a label says that a decision was made, or that its outcome was withdrawn.
    `version` pins the table; decisions before `since` are left out of rows and counts alike.
    """
    key, now = quote(use_case.entity.key), literal(as_of)
    delay = f"to_microseconds({use_case.label.delay // timedelta(microseconds=1)})"
    first = "" if since is None else f"AND event_timestamp >= {literal(since)}"
    with connect() as con:
        _scan(
            con,
            lake,
            "labels",
            label_table(lake, use_case),
            use_case,
            as_of,
            version,
            label_schema(use_case),
        )
        # Of the rows that exist before as_of, one whose outcome is dated later still says only that
        # the decision was made.
        con.execute(
            f"""
            CREATE TEMP TABLE decisions AS
            WITH seen AS (
                SELECT {key} AS __entity, event_timestamp,
                    coalesce(label_timestamp, created_timestamp) AS __known_from,
                    created_timestamp, label IS NOT NULL AND label_timestamp >= {now} AS __pending,
                    CASE WHEN NOT (label IS NOT NULL AND label_timestamp >= {now})
                        THEN label END AS __label
                FROM labels
                WHERE event_timestamp < {now} AND created_timestamp < {now} {first}
            )
            SELECT *, count(__label) OVER (PARTITION BY __entity, event_timestamp) AS __known,
                event_timestamp + {delay} < {now} AS __mature
            FROM seen
            QUALIFY row_number() OVER (
                PARTITION BY __entity, event_timestamp
                ORDER BY __pending, created_timestamp DESC, __label IS NULL, __known_from DESC,
                    __label DESC
            ) = 1
            """
        )
        rows = con.sql(
            f"SELECT __entity AS {key}, event_timestamp, __known_from AS label_timestamp, __label "
            "AS label FROM decisions WHERE __mature AND __label IS NOT NULL ORDER BY "
            "event_timestamp, __entity"
        ).to_arrow_table()
        mature = con.sql(
            f"SELECT __entity AS {key}, event_timestamp, __label IS NULL AS __censored, __label "
            "IS NOT NULL AND __known > 1 AS __restated FROM decisions WHERE __mature ORDER BY "
            "event_timestamp, __entity"
        ).to_arrow_table()
        (immature,) = con.execute(
            "SELECT count(*) FROM decisions WHERE NOT __mature"
        ).fetchone() or (0,)
    return Spine(rows, mature, immature)


def table_versions(lake: Lake, use_case: UseCase, feature_set: FeatureSet) -> dict[str, int | None]:
    """Return the versions that the labels and the feature tables have now: what a manifest
    keeps.
    """
    tables = [
        label_table(lake, use_case),
        *(view.table(use_case.name) for view in feature_set.views),
    ]
    return {table: lake.version(table) for table in tables}


def required_partitions(use_case: UseCase, feature_set: FeatureSet, rows: pa.Table) -> list[str]:
    """Return the partitions in which the features of decisions can stand: what a frame of these
    rows must find computed.

    `rows` has `event_timestamp`. A decision sees what arrived within the longest ttl before the
    newest `as_of` that it can know; a view whose row comes with the request also what arrived in
    the decision's own period.
    """
    found: list[str] = []
    for key in np.unique(_periods(use_case, rows)).tolist():
        lower, upper = _reach(use_case, feature_set, key)
        if found and lower <= found[-1]:
            lower = partitions.after(use_case, found[-1])
        if lower <= upper:
            found += partitions.between(use_case, lower, upper)
    return found


def required_at(use_case: UseCase, feature_set: FeatureSet, key: str) -> list[str]:
    """Return the partitions in which features that are alive at the `as_of` of `key` can stand."""
    lower, _ = _reach(use_case, feature_set, partitions.after(use_case, key))
    return partitions.between(use_case, min(lower, key), key)


def answerable(
    records: Records, use_case: UseCase, feature_set: FeatureSet, rows: pa.Table
) -> pa.Table:
    """Return the decisions whose `required_partitions` all hold the set: those that a part of
    the history can tell of.
    """
    from include.features import feature_sets

    done = [
        row
        for row in records.results.of(use_case.name, stage="materialize_features")
        if row.state == "done"
    ]
    there = {row.key for row in done} - set(feature_sets.lacking(done, feature_set))
    periods = _periods(use_case, rows)
    good = []
    for key in np.unique(periods).tolist():
        lower, upper = _reach(use_case, feature_set, key)
        if lower > upper or there.issuperset(partitions.between(use_case, lower, upper)):
            good.append(key)
    return rows.filter(pa.array(np.isin(periods, good)))


def training_frame(
    settings: Settings,
    use_case: UseCase,
    feature_set: FeatureSet,
    spine: Spine | pa.Table,
    versions: Mapping[str, int | None],
    *,
    records: Records,
) -> pa.Table:
    """Return the spine's columns and every feature of the set as known at each decision; same rows,
    same order.

    Raises: MissingPartition: a partition that can hold a decision's features does not hold a view
        of the set. EvergreenError: rows were lost, doubled or moved.
    """
    from include.features import feature_sets
    from include.features.feast_offline_store import pinned
    from include.features.feast_registry import service_name, transient_store

    rows = spine.rows if isinstance(spine, Spine) else spine
    feature_sets.held(
        records, use_case, feature_set, required_partitions(use_case, feature_set, rows)
    )
    asked = rows.select([feature_set.key, "event_timestamp"])
    store = transient_store(settings, use_case, feature_set)
    with pinned(versions):
        job = store.get_historical_features(
            entity_df=asked.to_pandas(),
            features=store.get_feature_service(service_name(use_case.name)),
            filter_by_created_timestamp=True,
        )
        found = job.to_arrow()
    if not found.column(feature_set.key).equals(
        asked.column(0).cast(found.column(feature_set.key).type)
    ):
        raise EvergreenError(
            f"{use_case.name}: the training frame came back with other rows than were asked for; "
            "report this"
        )
    for name in feature_set.feature_types:
        rows = rows.append_column(name, found.column(name))
    return rows


def entity_frame_at(
    lake: Lake,
    use_case: UseCase,
    feature_set: FeatureSet,
    as_of: datetime,
    *,
    versions: Mapping[str, int | None] | None = None,
) -> pa.Table:
    """Return every entity's features as a decision at `as_of` (+ availability) sees them, over all
    partitions up to it.

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
    """Return the entities for which a view is alive at `as_of`, with all features: what drift
    compares.

    Columns: entity key, the features, and for each view whether it is alive (`alive_column`).
    """
    frame = answers_at(lake, use_case, feature_set, as_of, versions=versions)
    moment = as_of + max(view.availability for view in feature_set.views)
    horizon = pa.scalar(
        (Calendar.of(use_case).horizon(moment) - _EPOCH) // _MICROSECOND, pa.int64()
    )
    anyone = pa.array(np.zeros(len(frame), dtype=bool))
    rows = frame.select([feature_set.key, *feature_set.feature_types])
    for view in feature_set.views:
        age = pc.subtract(
            horizon, frame.column(newest_column(view)).cast(TIMESTAMP).cast(pa.int64())
        )
        alive = pc.fill_null(pc.less_equal(age, view.ttl // _MICROSECOND), False).combine_chunks()
        anyone = pc.or_(anyone, alive)
        rows = rows.append_column(alive_column(view), alive)
    return rows.filter(anyone)


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
) -> pa.Table:
    """Return the rows of `entity_frame_at` with, for each view, the event time of its newest row
    (`newest_column`).

    Who has no view whose newest row is younger than `expiry.REMEMBERED` of its ttls is left out:
    nobody is remembered for ever. `keys` are the partitions to read (None: all of the tables).
    """
    moment = as_of + max(view.availability for view in feature_set.views)
    calendar = Calendar.of(use_case)
    longest = max(view.ttl for view in feature_set.views)
    key, now, horizon = quote(feature_set.key), literal(moment), literal(calendar.horizon(moment))
    with connect() as con:
        newest = []
        for index, view in enumerate(feature_set.views):
            table = view.table(use_case.name)
            _scan(
                con,
                lake,
                f"view_{index}",
                table,
                use_case,
                as_of,
                (versions or {}).get(table),
                view.schema,
                keys,
            )
            newest.append(
                f"SELECT {key} AS __entity, {index} AS __view, max(event_timestamp) AS __newest, "
                f"max(event_timestamp) + {_interval(view.ttl)} AS __expires, max(event_timestamp) "
                f">= {_since(horizon, view.ttl)} AS __remembered FROM view_{index} WHERE "
                f"event_timestamp <= {now} AND created_timestamp <= {now} AND event_timestamp >= "
                f"{_since(horizon, longest)} GROUP BY 1"
            )
        each = ", ".join(
            f"max(__newest) FILTER (__view = {index}) AS {quote(newest_column(view))}"
            for index, view in enumerate(feature_set.views)
        )
        frame = con.sql(
            f"SELECT __entity AS {key}, min(__expires) - {_interval(feature_set.ttl)} AS "
            f"event_timestamp, {each} FROM ({' UNION ALL '.join(newest)}) GROUP BY 1 HAVING "
            "bool_or(__remembered) ORDER BY 1"
        ).to_arrow_table()
        moments = pa.array(
            np.full(len(frame), moment.replace(tzinfo=None), dtype="datetime64[us]")
        ).cast(TIMESTAMP)
        asked = pa.table({feature_set.key: frame.column(0), "event_timestamp": moments})
        for index, view in enumerate(feature_set.views):
            found = as_of_join(
                con,
                asked,
                f"view_{index}",
                key=feature_set.key,
                ttl=view.ttl,
                calendar=calendar,
                columns=list(view.columns),
            )
            for name in view.columns:
                frame = frame.append_column(name, found.column(name))
    return frame


def _scan(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    name: str,
    table: str,
    use_case: UseCase,
    as_of: datetime,
    version: int | None,
    schema: pa.Schema,
    keys: Sequence[str] | None = None,
) -> None:
    """Show the partitions of a table (`keys`, or all) that had arrived before `as_of`."""
    last = partitions.key_of(use_case, as_of - timedelta(microseconds=1))
    lake.scan(con, name, table, keys=keys, version=version, schema=schema, until=last)


def _periods(use_case: UseCase, rows: pa.Table) -> NDArray[np.str_]:
    """Return the key of the partition in whose arrival interval each decision lies, also outside
    the history.
    """
    day, epoch = timedelta(days=1) // _MICROSECOND, date(1970, 1, 1)
    micros = np.asarray(rows.column("event_timestamp").cast(TIMESTAMP).cast(pa.int64()).to_numpy())
    days, place = np.unique((micros - use_case.cut_off // _MICROSECOND) // day, return_inverse=True)
    keys = [
        period_start(use_case.cadence, epoch + timedelta(days=int(number))).isoformat()
        for number in days
    ]
    return np.array(keys, dtype="U10")[place]


def _reach(use_case: UseCase, feature_set: FeatureSet, key: str) -> tuple[str, str]:
    """Return the oldest and the newest key whose rows a decision in the arrival interval of `key`
    can see.

    Within the history; the oldest is after the newest where there are none. A ttl ends after its
    last moment.
    """
    history, newest = use_case.history, midnight(date.fromisoformat(key)) + use_case.cut_off
    ttl = max(view.ttl for view in feature_set.views)
    # A ttl may leave the calendar.
    known = max(timedelta(0), newest - midnight(history.first) - use_case.cut_off)
    lower = partitions.key_of(use_case, newest - min(ttl, known) - _MICROSECOND)
    own = any(view.visible == "with_request" for view in feature_set.views)
    upper = key if own else partitions.key_of(use_case, newest - _MICROSECOND)
    return max(lower, history.first.isoformat()), upper if history.last is None else min(
        upper, history.last.isoformat()
    )


def _since(horizon: str, ttl: timedelta) -> str:
    """Return the oldest moment that is remembered; a ttl of centuries would leave the calendar,
    so it is cut.
    """
    return f"{horizon} - {_interval(REMEMBERED * min(ttl, timedelta(days=100_000)))}"


def _interval(span: timedelta) -> str:
    return f"to_microseconds({span // timedelta(microseconds=1)})"
