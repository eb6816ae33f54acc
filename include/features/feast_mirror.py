"""Feast's own online table, kept equal to the packed rows of the current feature set.

A marker row in Feast's database, written in the same transaction, says from which packed rows the
table was made; it is looked at without importing feast.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Conflict, EvergreenError
from include.features import feast_registry
from include.features.feature_sets import FeatureSet, FeatureView
from include.features.frames import newest_column
from include.features.online_store import OnlineSet
from include.lake.sql import TIMESTAMP
from include.pipeline.stage import StageContext

if TYPE_CHECKING:
    import feast

SAMPLE = 50
_MARKER = (
    "CREATE TABLE IF NOT EXISTS evergreen_mirror (use_case TEXT PRIMARY KEY, feature_set TEXT NOT "
    "NULL, partition TEXT NOT NULL, digest TEXT NOT NULL, cells TEXT NOT NULL)"
)


def is_mirrored(
    settings: Settings, use_case: UseCase, feature_set: FeatureSet, packed: OnlineSet
) -> bool:
    """Tell whether the registry and Feast's online table already stand at these packed rows."""
    path = feast_registry.online_path(settings)
    if not path.exists() or not feast_registry.is_applied(settings, use_case, feature_set):
        return False
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as con:
        try:
            found = con.execute(
                "SELECT feature_set, partition, digest, cells FROM evergreen_mirror WHERE "
                "use_case = ?",
                (use_case.name,),
            ).fetchone()
            cells = _cells(con, use_case, feature_set)
        except sqlite3.Error:
            return False  # no marker, or a table that Feast has dropped
    return found is not None and tuple(found) == (
        packed.feature_set,
        packed.partition,
        packed.digest,
        cells,
    )


def mirror(
    context: StageContext, feature_set: FeatureSet, packed: OnlineSet, frame: pa.Table
) -> None:
    """Register the definitions if they changed, then write all views of the frame in one
    transaction, and read back.

    Raises:
        Conflict: Feast's table stands at a newer partition.
        EvergreenError: Feast answers otherwise than what was written.
    """
    feast_registry.apply_registry(context.settings, context.records, context.use_case, feature_set)
    store = feast_registry.store(context.settings)
    online_store = store._get_provider().online_store
    with online_store.one_transaction(store.config) as con:
        con.execute(_MARKER)
        there = con.execute(
            "SELECT partition FROM evergreen_mirror WHERE use_case = ?", (context.use_case.name,)
        ).fetchone()
        if there is not None and there[0] > packed.partition:
            raise Conflict(
                f"{context.use_case.name}: Feast's online rows are from {there[0]}; "
                f"{packed.partition} does not replace them"
            )
        for view in feature_set.views:
            declared = store.get_feature_view(
                feast_registry.view_name(context.use_case.name, view.name)
            )
            online_store.replace_all(store.config, declared, _rows(frame, feature_set, view))
        context.held.check()
        con.execute(
            "INSERT OR REPLACE INTO evergreen_mirror VALUES (?, ?, ?, ?, ?)",
            (
                context.use_case.name,
                packed.feature_set,
                packed.partition,
                packed.digest,
                _cells(con, context.use_case, feature_set),
            ),
        )
    _read_back(store, context, feature_set, frame)


def _rows(frame: pa.Table, feature_set: FeatureSet, view: FeatureView) -> pa.Table:
    """Return a view's online rows as Feast wants them: entity key, features, the row's own event
    time.
    """
    known = frame.filter(pc.is_valid(frame.column(newest_column(view))))
    newest = known.column(newest_column(view)).cast(TIMESTAMP)
    body = known.select([feature_set.key, *view.columns])
    return body.append_column("event_timestamp", newest).append_column("created_timestamp", newest)


def _read_back(
    store: feast.FeatureStore, context: StageContext, feature_set: FeatureSet, frame: pa.Table
) -> None:
    """Ask Feast for a sample of entities, spread over all, and compare every feature."""
    step = max(1, len(frame) // SAMPLE)
    sample = frame.take(pa.array(range(0, len(frame), step), pa.int64())).to_pylist()
    if not sample:
        return
    key, name = feature_set.key, context.use_case.name
    answer = store.get_online_features(
        features=store.get_feature_service(feast_registry.service_name(name)),
        entity_rows=[{key: row[key]} for row in sample],
    ).to_dict()
    for index, row in enumerate(sample):
        for feature in feature_set.feature_types:
            if not _same(answer[feature][index], row[feature]):
                raise EvergreenError(
                    f"{name} {context.key}: Feast answers {answer[feature][index]!r} for {feature} "
                    f"of {key} {row[key]}, written was {row[feature]!r}; run materialize_features "
                    "again"
                )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN is the same as NaN


def _table(use_case: UseCase, view: FeatureView) -> str:
    return f'"{feast_registry.PROJECT}_{feast_registry.view_name(use_case.name, view.name)}"'


def _cells(con: sqlite3.Connection, use_case: UseCase, feature_set: FeatureSet) -> str:
    """Return how many values each view has online."""
    counts = [
        con.execute(f"SELECT count(*) FROM {_table(use_case, view)}").fetchone()[0]
        for view in feature_set.views
    ]
    return ",".join(map(str, counts))
