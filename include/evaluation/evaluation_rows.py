"""The rows on which a candidate is judged, as its training stored them, and a model's scores."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from include.errors import EvergreenError
from include.features import feature_sets, frames
from include.lake.digests import digest
from include.models import metrics as statistics
from include.models.loading import load_model
from include.models.matrix import columns_of
from include.models.metrics import Numbers
from include.models.presence import find_bundle
from include.pipeline.stage import StageContext
from include.pipeline.training_outputs import TrainingSet
from include.records.records import Model
from include.training import splits


def read_training_set(context: StageContext, recorded: TrainingSet, key: str) -> pa.Table:
    """Return the rows of a training, by time and entity.

    Raises:
        EvergreenError: the lake holds other rows than were trained on.
    """
    rows = context.lake.read(recorded.table, keys=[key], version=recorded.table_version)
    order = ["event_timestamp", context.use_case.entity.key]
    # The digest of other rows than were recorded, which may be any number of them, is not needed.
    found = digest(rows, sort_by=order) if len(rows) == recorded.rows else f"{len(rows)} rows"
    if found != recorded.digest:
        raise EvergreenError(
            f"{recorded.table} {key} holds {found} in version {recorded.table_version}, recorded "
            f"are {recorded.rows} rows of {recorded.digest}; the lake was changed or cleaned too "
            "far back, train this partition again"
        )
    return rows.sort_by([(name, "ascending") for name in order])


def read_moments(context: StageContext, recorded: TrainingSet) -> pa.Table:
    """Return the evaluation rows of the partition's training with their moments alone."""
    columns = ["event_timestamp", "split"]
    rows = context.lake.read(
        recorded.table, keys=[context.key], columns=columns, version=recorded.table_version
    )
    return evaluation_part(rows)


def evaluation_part(rows: pa.Table) -> pa.Table:
    """Return the rows of the evaluation part."""
    return rows.filter(pc.equal(rows.column("split"), splits.EVALUATION))


def score_rows(context: StageContext, model: Model, rows: pa.Table, feature_set: str) -> Numbers:
    """Score rows that hold the features of `feature_set`; a model of another set gets its own."""
    if not len(rows):
        return statistics.EMPTY
    scorer = load_model(find_bundle(context.store, model), model.model_digest)
    if model.feature_set != feature_set:
        decisions = rows.select([context.use_case.entity.key, "event_timestamp", "label"])
        own = feature_sets.recorded(context.records, context.use_case.name, model.feature_set)
        rows = frames.training_frame(
            context.settings,
            context.use_case,
            own,
            decisions,
            frames.table_versions(context.lake, context.use_case, own),
            records=context.records,
            until=context.key,
        )
    return scorer.many(columns_of(rows, scorer.schema))
