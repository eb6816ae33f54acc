"""The rows that drift compares: of the reference and of the partition, by view.

Views of grain snapshot give a row an entity, for which the view is alive on that side. Views of
grain event give the rows that are new in a partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.artefacts.address import Address
from include.errors import ArtefactError
from include.features import population
from include.features.feature_sets import FeatureView
from include.lake.sql import connect, quote
from include.models.artefact import refuse_collected
from include.monitoring.references import Reference, training_window
from include.pipeline.drift_outputs import ComparedRows
from include.pipeline.outputs import optional
from include.pipeline.stage import StageContext
from include.pipeline.training_outputs import Manifest
from include.point_in_time import partitions
from include.records.records import Model
from include.training.model_store import REFERENCE


@dataclass(frozen=True)
class Sides:
    """The features of both sides by view, and the share of the entities that a view has lost."""

    reference: Mapping[str, pa.Table]
    current: Mapping[str, pa.Table]
    lost: Mapping[str, float | None]

    def counted(self) -> dict[str, ComparedRows]:
        """Return how many rows are compared of each view."""
        return {
            view: ComparedRows(
                reference=len(rows), current=len(self.current[view]), lost=self.lost.get(view)
            )
            for view, rows in self.reference.items()
        }


NO_SIDES = Sides({}, {}, {})


def read_sides(context: StageContext, reference: Reference) -> Sides:
    """Return the rows to compare.

    Raises:
        ArtefactError: the sample that training kept is gone or damaged.
        Unavailable: it is not in the store, or that does not answer.
    """
    before: dict[str, pa.Table] = {}
    now: dict[str, pa.Table] = {}
    lost: dict[str, float | None] = {}
    views = reference.feature_set.views
    if any(view.grain == "snapshot" for view in views):
        everyone_now = _population(context, reference, context.key)
        everyone_before = (
            _population(context, reference, reference.key)
            if reference.model is None
            else _read_sample(context, reference.model)
        )
    for view in views:
        if view.grain == "event":
            window = training_window(context, reference)
            before[view.name] = _new_rows(context, view, window, reference.model)
            now[view.name] = _new_rows(context, view, [context.key], None)
        else:
            old, new = _with_view(everyone_before, everyone_now, view)
            before[view.name], now[view.name] = _features(old, view), _features(new, view)
            lost[view.name] = _lost_share(old, new, view)
    return Sides(before, now, lost)


def _population(context: StageContext, reference: Reference, key: str) -> pa.Table:
    """Return the features of all who are there at the `as_of` of a partition."""
    as_of = partitions.period(context.use_case, key).as_of
    return population.population_at(context.lake, context.use_case, reference.feature_set, as_of)


def _with_view(before: pa.Table, now: pa.Table, view: FeatureView) -> tuple[pa.Table, pa.Table]:
    """Return the rows of both sides for which a view is alive.

    A sample that an older version kept does not say so: of such a one the rows that have any value
    count, and then on both sides, since otherwise who only lacks a value would seem to have left.
    """
    alive = population.alive_column(view)
    if alive in before.column_names and alive in now.column_names:
        return before.filter(before.column(alive)), now.filter(now.column(alive))
    return before.filter(_has_value(before, view)), now.filter(_has_value(now, view))


def _has_value(rows: pa.Table, view: FeatureView) -> pa.Array:
    """Return which rows have any value of a view: of an expired view all are null."""
    valid = np.zeros(len(rows), dtype=bool)
    for column in _features(rows, view).columns:
        valid |= np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), dtype=bool)
    return pa.array(valid)


def _lost_share(before: pa.Table, now: pa.Table, view: FeatureView) -> float | None:
    """Return the share of the reference's entities that are gone; None: there were none."""
    if not len(before):
        return None
    # Keys of both sides have one type in the lake, but not in a sample of an older version.
    present = pc.unique(now.column(view.key)).cast(before.schema.field(view.key).type)
    return 1 - float(pc.mean(pc.is_in(before.column(view.key), present).cast(pa.int8())).as_py())


def _read_sample(context: StageContext, model: Model) -> pa.Table:
    """Return the sample of all entities' features that the model's training kept.

    Raises:
        ArtefactError: it cannot be read, was collected, or has another number of rows than is
            recorded.
        Unavailable: it is not in the store, or that does not answer.
    """
    import pyarrow.parquet as pq

    refuse_collected(model)
    if model.reference_uri is not None and Address.parse(model.reference_uri).is_digest:
        # Verified by its digest, which the row names.
        return pq.read_table(context.store.get(model.reference_uri) / REFERENCE)
    recorded = Manifest.of_model(model).reference
    path = Path((optional(recorded.path) or "") if recorded is not None else "")
    if model.reference_uri is not None and not path.is_file():  # of a home that was moved
        path = Path(context.store.home, Address.parse(model.reference_uri).path)
    what = f"the reference sample of version {model.version}, {path},"
    try:
        rows = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(f"{what} cannot be read: {str(error).splitlines()[0]}") from None
    if recorded is not None and len(rows) != recorded.rows:
        raise ArtefactError(f"{what} has {len(rows)} rows, not {recorded.rows}")
    return rows


def _new_rows(
    context: StageContext, view: FeatureView, keys: Sequence[str], model: Model | None
) -> pa.Table:
    """Return the event rows of partitions, at most `monitoring.sample`, the same every time.

    With a model they are those that it was trained on: of the table's version at that time.
    """
    table = view.table(context.use_case.name)
    version = None if model is None else Manifest.of_model(model).tables.get(table)
    features = ", ".join(quote(name) for name in view.columns)
    # A sample that depends on the rows alone: a hash orders them, and equal hashes their values.
    order = f"hash({quote(view.key)}, event_timestamp, created_timestamp), {features}"
    with connect() as con:
        context.lake.scan(con, "rows", table, keys=keys, version=version, schema=view.schema)
        return con.sql(
            f"SELECT {features} FROM rows ORDER BY {order} "
            f"LIMIT {context.use_case.monitoring.sample}"
        ).to_arrow_table()


def _features(rows: pa.Table, view: FeatureView) -> pa.Table:
    return rows.select([name for name in view.columns if name in rows.column_names])
