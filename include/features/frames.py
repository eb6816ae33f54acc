"""Training frames: the features of decisions as serving would have seen them, and what they need.

Which partitions must hold a view for a frame of some decisions to be whole is said here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.durations import midnight, period_start
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import EvergreenError
from include.features import feature_sets
from include.features.feature_sets import FeatureSet
from include.features.spine import Spine
from include.lake.sql import TIMESTAMP
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.point_in_time.curated import label_table
from include.records.records import Records

_MICROSECOND = timedelta(microseconds=1)


def table_versions(lake: Lake, use_case: UseCase, feature_set: FeatureSet) -> dict[str, int | None]:
    """Return the present versions of labels and feature tables, which a manifest keeps."""
    tables = [
        label_table(lake, use_case),
        *(view.table(use_case.name) for view in feature_set.views),
    ]
    return {table: lake.version(table) for table in tables}


def required_partitions(
    use_case: UseCase, feature_set: FeatureSet, rows: pa.Table, *, until: str | None = None
) -> list[str]:
    """Return the partitions in which the features of decisions can stand, in order.

    A frame of these rows must find them computed; `rows` has `event_timestamp`. A decision sees
    what arrived within the longest ttl before the newest `as_of` that it can know. A view whose row
    comes with the request has the decision's own row too, which may have arrived in any partition
    from the decision's own up to `until`, the one whose knowledge the frame is of (None: in the
    decision's own).
    """
    required: list[str] = []
    for key in np.unique(_period_keys(use_case, rows)).tolist():
        lower, upper = _reach(use_case, feature_set, key, until)
        # The periods come in order, so what an earlier one reached is at the end of the list.
        if required and lower <= required[-1]:
            lower = partitions.after(use_case, required[-1])
        if lower <= upper:
            required += partitions.between(use_case, lower, upper)
    return required


def required_at(use_case: UseCase, feature_set: FeatureSet, key: str) -> list[str]:
    """Return the partitions in which features that are alive at the `as_of` of `key` can stand."""
    lower, _ = _reach(use_case, feature_set, partitions.after(use_case, key), None)
    return partitions.between(use_case, min(lower, key), key)


def keep_answerable(
    records: Records, use_case: UseCase, feature_set: FeatureSet, rows: pa.Table
) -> pa.Table:
    """Return the decisions whose `required_partitions` all hold the set.

    Those are the ones of which a part of the history can tell.
    """
    done = [
        result
        for result in records.results.of(use_case.name, stage="materialize_features")
        if result.state == "done"
    ]
    computed = {result.key for result in done} - set(feature_sets.keys_without(done, feature_set))
    period_keys = _period_keys(use_case, rows)
    answerable = []
    for key in np.unique(period_keys).tolist():
        lower, upper = _reach(use_case, feature_set, key, None)
        if lower > upper or computed.issuperset(partitions.between(use_case, lower, upper)):
            answerable.append(key)
    return rows.filter(pa.array(np.isin(period_keys, answerable)))


def training_frame(
    settings: Settings,
    use_case: UseCase,
    feature_set: FeatureSet,
    spine: Spine | pa.Table,
    versions: Mapping[str, int | None],
    *,
    records: Records,
    until: str | None = None,
) -> pa.Table:
    """Return the spine's columns and every feature as known at each decision; rows in order.

    `until` is the newest partition that is read, that of the training, as `required_partitions` has
    it.

    Raises:
        MissingPartition: a partition that can hold a decision's features does not hold a view of
            the set.
        EvergreenError: rows were lost, doubled or moved.
    """
    from include.features.feast_offline_store import pinned
    from include.features.feast_registry import service_name, transient_store

    rows = spine.rows if isinstance(spine, Spine) else spine
    required = required_partitions(use_case, feature_set, rows, until=until)
    feature_sets.require_results(records, use_case, feature_set, required)
    asked = rows.select([feature_set.key, "event_timestamp"])
    store = transient_store(settings, use_case, feature_set)
    with pinned(versions, keys=required):
        job = store.get_historical_features(
            entity_df=asked.to_pandas(),
            features=store.get_feature_service(service_name(use_case.name)),
            filter_by_created_timestamp=True,
        )
        answer = job.to_arrow()
    answered_keys = answer.column(feature_set.key)
    if not answered_keys.equals(asked.column(0).cast(answered_keys.type)):
        raise EvergreenError(
            f"{use_case.name}: the training frame came back with other rows than were asked for; "
            "report this"
        )
    for name in feature_set.feature_types:
        rows = rows.append_column(name, answer.column(name))
    return rows


def _period_keys(use_case: UseCase, rows: pa.Table) -> NDArray[np.str_]:
    """Return the partition in whose arrival interval each decision lies, also outside the history.

    An array of keys, one a row.
    """
    day, epoch = timedelta(days=1) // _MICROSECOND, date(1970, 1, 1)
    micros = np.asarray(rows.column("event_timestamp").cast(TIMESTAMP).cast(pa.int64()).to_numpy())
    days, day_of_row = np.unique(
        (micros - use_case.cut_off // _MICROSECOND) // day, return_inverse=True
    )
    keys = [
        period_start(use_case.cadence, epoch + timedelta(days=int(number))).isoformat()
        for number in days
    ]
    return np.array(keys, dtype="U10")[day_of_row]  # YYYY-MM-DD: ten characters


def _reach(
    use_case: UseCase, feature_set: FeatureSet, key: str, until: str | None
) -> tuple[str, str]:
    """Return the oldest and the newest key whose rows a decision in the period `key` can see.

    Its own row is looked for up to `until`: what a row says that arrives a minute after midnight,
    or a week late, stood in the request all the same. Both keys lie within the history; the oldest
    is after the newest where there are none.
    """
    history, newest_as_of = use_case.history, midnight(date.fromisoformat(key)) + use_case.cut_off
    ttl = max(view.ttl for view in feature_set.views)
    # A ttl of centuries would leave Python's calendar, so none reaches further than the history.
    since_first = max(timedelta(0), newest_as_of - midnight(history.first) - use_case.cut_off)
    # A microsecond more: a row is alive up to and including the last moment of its ttl.
    lower = partitions.key_of(use_case, newest_as_of - min(ttl, since_first) - _MICROSECOND)
    own = any(view.visible == "with_request" for view in feature_set.views)
    seen = partitions.key_of(use_case, newest_as_of - _MICROSECOND)
    upper = max(key, until or key) if own else seen
    if history.last is not None:
        upper = min(upper, history.last.isoformat())
    return max(lower, history.first.isoformat()), upper
