"""Feast's own online table, kept equal to the packed rows where the use case asks for it.

`online.feast` of the use case says so. A marker row in Feast's database, written in the same
transaction, says from which packed rows the table was made; it is looked at without importing
feast.
"""

from __future__ import annotations

import math
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
from include.features.online_rows import OnlineSet
from include.features.population import newest_column
from include.lake.sql import TIMESTAMP, quote
from include.pipeline.stage import StageContext

if TYPE_CHECKING:
    import feast

# How many entities are asked for after a write, and how many rows Feast converts at once: it makes
# a Python object of every value.
SAMPLE = 50
ROWS_AT_ONCE = 10_000
_MARKER = """
    CREATE TABLE IF NOT EXISTS evergreen_mirror (
        use_case TEXT PRIMARY KEY,
        feature_set TEXT NOT NULL,
        partition TEXT NOT NULL,
        digest TEXT NOT NULL,
        cells TEXT NOT NULL
    )
"""


def is_mirrored(
    settings: Settings, use_case: UseCase, feature_set: FeatureSet, packed: OnlineSet
) -> bool:
    """Tell whether Feast's online table already stands at these packed rows."""
    path = feast_registry.online_path(settings)
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as con:
        try:
            marker: tuple[str, ...] | None = con.execute(
                "SELECT feature_set, partition, digest, cells FROM evergreen_mirror "
                "WHERE use_case = ?",
                (use_case.name,),
            ).fetchone()
            cells = _cells(con, use_case, feature_set)
        except sqlite3.Error:
            return False  # no marker, or a table that Feast has dropped
    return marker == (packed.feature_set, packed.partition, packed.digest, cells)


def write_mirror(
    context: StageContext, feature_set: FeatureSet, packed: OnlineSet, frame: pa.Table
) -> None:
    """Replace Feast's rows of all views by those of the frame in one transaction, and read back.

    The definitions must be registered.

    Raises:
        Conflict: Feast's table stands at a newer partition.
        EvergreenError: Feast answers otherwise than what was written.
    """
    use_case = context.use_case
    store = feast_registry.store(context.settings)
    _ensure_tables(store, use_case, feature_set)
    with store._get_provider().online_store.one_transaction(store.config) as con:
        con.execute(_MARKER)
        marker = con.execute(
            "SELECT partition FROM evergreen_mirror WHERE use_case = ?", (use_case.name,)
        ).fetchone()
        if marker is not None and marker[0] > packed.partition:
            raise Conflict(
                f"{use_case.name}: Feast's online rows are from {marker[0]}; "
                f"{packed.partition} does not replace them"
            )
        written = []
        for view in feature_set.views:
            con.execute(f"DELETE FROM {_table(use_case, view)}")
            written.append(_write_view(store, use_case, feature_set, view, frame))
        cells = _cells(con, use_case, feature_set)
        if cells != ",".join(map(str, written)):
            raise EvergreenError(
                f"{use_case.name} {context.key}: Feast holds {cells} values by view, {written} "
                "were written; report this"
            )
        context.held.check()
        con.execute(
            "INSERT OR REPLACE INTO evergreen_mirror VALUES (?, ?, ?, ?, ?)",
            (use_case.name, packed.feature_set, packed.partition, packed.digest, cells),
        )
    _read_back(store, context, feature_set, frame)


def remove_mirror(settings: Settings, use_case: UseCase, feature_set: FeatureSet) -> bool:
    """Take a use case's rows out of Feast's online table, if this module wrote them there.

    A use case that no longer asks for them would otherwise be answered with old ones for ever.
    """
    path = feast_registry.online_path(settings)
    if not path.exists():
        return False
    with closing(sqlite3.connect(path, timeout=30.0)) as con, con:
        tables = {name for (name,) in con.execute("SELECT name FROM sqlite_master")}
        if "evergreen_mirror" not in tables:
            return False
        removed = con.execute("DELETE FROM evergreen_mirror WHERE use_case = ?", (use_case.name,))
        if not removed.rowcount:
            return False
        for view in feature_set.views:
            if _table_name(use_case, view) in tables:
                con.execute(f"DELETE FROM {_table(use_case, view)}")
    return True


def _ensure_tables(store: feast.FeatureStore, use_case: UseCase, feature_set: FeatureSet) -> None:
    """Make the views' tables where another machine, with a file of its own, registered them."""
    views = [
        store.get_feature_view(feast_registry.view_name(use_case.name, view.name))
        for view in feature_set.views
    ]
    store._get_provider().online_store.update(
        config=store.config,
        tables_to_delete=[],
        tables_to_keep=views,
        entities_to_delete=[],
        entities_to_keep=[],
        partial=True,
    )


def _write_view(
    store: feast.FeatureStore,
    use_case: UseCase,
    feature_set: FeatureSet,
    view: FeatureView,
    frame: pa.Table,
) -> int:
    """Write a view's rows by Feast's own call; return how many values that are."""
    newest = frame.column(newest_column(view))
    rows = frame.filter(pc.is_valid(newest)).select([feature_set.key, *view.columns])
    rows = rows.append_column("event_timestamp", newest.drop_null().cast(TIMESTAMP))
    declared = store.get_feature_view(feast_registry.view_name(use_case.name, view.name))
    online_store = store._get_provider().online_store
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        online_store.online_write_batch(
            store.config, declared, _feast_rows(declared, batch), progress=None
        )
    return len(rows) * len(view.columns)


def _feast_rows(declared: feast.FeatureView, rows: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Return rows as Feast's stores take them: entity key, values by feature, both times.

    Not by `FeatureStore.write_to_online_store`: on its way through pandas an integer beside a null
    becomes a float, it writes the first batch of a table alone, and a view of nulls not at all.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    (entity,) = declared.entity_columns
    values = {
        field.name: python_values_to_proto_values(
            rows.column(field.name).to_pylist(), field.dtype.to_value_type()
        )
        for field in (entity, *declared.features)
    }
    keys = [
        EntityKey(join_keys=[entity.name], entity_values=[key]) for key in values.pop(entity.name)
    ]
    features = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    times = rows.column("event_timestamp").to_pylist()
    return list(zip(keys, features, times, times, strict=True))


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
            if not _is_answer(answer[feature][index], row[feature]):
                raise EvergreenError(
                    f"{name} {context.key}: Feast answers {answer[feature][index]!r} for {feature} "
                    f"of {key} {row[key]}, written was {row[feature]!r}; run materialize_features "
                    "again"
                )


def _is_answer(answer: Any, written: Any) -> bool:
    """Tell whether Feast's answer is the value that was written; Feast keeps NaN as a null."""
    if isinstance(written, float) and math.isnan(written):
        return answer is None
    return bool(answer == written)


def _table_name(use_case: UseCase, view: FeatureView) -> str:
    return f"{feast_registry.PROJECT}_{feast_registry.view_name(use_case.name, view.name)}"


def _table(use_case: UseCase, view: FeatureView) -> str:
    return quote(_table_name(use_case, view))


def _cells(con: sqlite3.Connection, use_case: UseCase, feature_set: FeatureSet) -> str:
    """Return how many values each view has online."""
    counts = [
        con.execute(f"SELECT count(*) FROM {_table(use_case, view)}").fetchone()[0]
        for view in feature_set.views
    ]
    return ",".join(map(str, counts))
