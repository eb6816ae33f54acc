"""Score every entity that is alive as of a partition, into the lake's table `scores` and as CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from include.artefacts.address import REPORTS
from include.artefacts.store import ArtefactStore
from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError, EvergreenError, MissingPartition, SourceError
from include.features import feature_sets, frames, population
from include.features.feature_sets import FeatureSet
from include.files import written_aside
from include.lake.commits import Fence
from include.lake.digests import digest
from include.lake.tables import Lake
from include.models.artefact import refuse_collected
from include.models.kinds import ServedModel
from include.models.loading import load_model
from include.models.matrix import columns_of
from include.models.presence import find_bundle
from include.pipeline.feature_outputs import FeatureOutputs
from include.pipeline.lakes import open_lake
from include.point_in_time import partitions
from include.point_in_time.curated import ARROW_TYPES, scores_table
from include.records.audit import AuditEntry
from include.records.records import Model, Records

TABLE = "scores"
CHUNK = 50_000  # rows that are in memory as Python values
# What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Scored:
    """A table of scores that was written, and where its CSV is: a path, or a URL of the store."""

    rows: int
    version: int
    as_of: datetime
    path: str


def score(
    use_case: UseCase,
    key: str,
    *,
    settings: Settings,
    records: Records,
    version: int | None = None,
    output: Path | None = None,
    actor: str = "cli",
) -> Scored:
    """Score all entities that are alive as of a partition by the model that `find_model` names.

    Whose features have all expired gets neither score nor decision: there is nothing to go by.

    Rows: entity key, event_timestamp (of the features), score, decision, version, model_digest.

    Raises:
        ConfigError: there is no such model, or none that was released by then.
        MissingPartition: features that can be alive at its as_of are not computed for the model.
        ArtefactError: the bundle does not have its recorded digest, answers otherwise here, or
            was collected.
        Unavailable: the store of artefacts cannot be read or written.
        SourceError: the CSV cannot be written.
    """
    period = partitions.period(use_case, key)
    lake = open_lake(settings)
    model = find_model(records, lake, use_case, key, version)
    feature_set = feature_sets.recorded(records, use_case.name, model.feature_set)
    require_features(records, use_case, feature_set, key)
    refuse_collected(model)
    store = ArtefactStore.of(settings)
    predictor = load_model(find_bundle(store, model), model.model_digest)
    predictor.check_golden()  # by the code and the libraries of now, which may not be its own
    frame = population.living_frame_at(lake, use_case, feature_set, period.as_of)
    rows = _score_rows(use_case, frame, predictor, model)
    lease = records.leases.claim(
        use_case.name,
        TABLE,
        key,
        owner=f"score:{actor}:{os.getpid()}",
        attempt=1,
        ttl=settings.lease_seconds,
    )
    with lease:
        lake.replace(
            scores_table(lake, use_case, rows.schema),
            key,
            rows,
            fence=Fence(lease.app, lease.token, lease.check),
        )
    details = {
        "version": model.version,
        "rows": len(rows),
        "digest": digest(rows, sort_by=[use_case.entity.key]),
    }
    if output is not None:
        path = str(output)
        export(output, rows)
    else:
        uri = f"store:{REPORTS}/{use_case.name}/{key}/scores-version-{model.version}.csv"
        with store.written(uri) as temporary:
            write_csv(temporary, rows)
        path, details["uri"] = store.where(uri), uri
    records.audit.append(
        AuditEntry("scores.written", use_case.name, key, actor, details, utc_now())
    )
    return Scored(len(rows), model.version, period.as_of, path)


def export(path: Path, rows: pa.Table) -> None:
    """Write rows as CSV to a file that a person named, whole or not at all.

    Raises:
        SourceError: the file cannot be written.
    """
    try:
        with written_aside(path) as temporary:
            write_csv(temporary, rows)
    except OSError as error:
        raise SourceError(
            f"{path} cannot be written ({error.strerror}); free space, or give another --output"
        ) from error


def write_csv(path: Path, rows: pa.Table) -> None:
    """Write rows as CSV; text that a spreadsheet would run as a formula is quoted with `'`.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([without_formula(name) for name in rows.column_names])
        for batch in rows.to_batches(max_chunksize=CHUNK):
            writer.writerows(zip(*map(_shown, batch.columns), strict=True))


def without_formula(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA):
        return f"'{value}"
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def _shown(column: pa.Array) -> Sequence[Any]:
    """Return the cells of a column, none of which a spreadsheet takes for a formula."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return list(column.to_pylist())
    # Each distinct value is looked at once.
    codes = column.dictionary_encode()
    shown = [without_formula(value) for value in codes.dictionary.to_pylist()]
    cells = np.array([*shown, None], dtype=object)
    return list(cells[np.asarray(codes.indices.fill_null(len(shown)))])


def find_model(
    records: Records, lake: Lake, use_case: UseCase, key: str, version: int | None = None
) -> Model:
    """Return the model that scores a partition; it is an input, so a rerun has the same one.

    It is the stated version, else the one that scored the partition before, else the champion. Of a
    backfill that is the newest model of then: what the champion of now has learnt from came later.

    Raises:
        ConfigError: there is no such model, or none that was released by then.
    """
    name = use_case.name
    if version is None and (before := _scored_before(records, lake, use_case, key)) is not None:
        return before
    number = _champion(records, name, key) if version is None else version
    model = records.models.get(name, number)
    if model is None:
        versions = [model.version for model in records.models.of(name)]
        raise ConfigError(f"{name} has no model version {number}; there are {versions or 'none'}")
    return model


def _scored_before(records: Records, lake: Lake, use_case: UseCase, key: str) -> Model | None:
    """Return the model by which a partition is scored already, if it is on record."""
    table = scores_table(lake, use_case, _schema(use_case))
    if key not in lake.keys(table):
        return None
    rows = lake.read(table, keys=[key], columns=["version", "model_digest"])
    if not len(rows):
        return None
    model = records.models.get(use_case.name, rows["version"][0].as_py())
    # After a reset a number may be another model's.
    is_it = model is not None and model.model_digest == rows["model_digest"][0].as_py()
    return model if is_it else None


def _champion(records: Records, use_case: str, key: str) -> int:
    """Return the champion of a partition: that of now, or of a backfill that of then."""
    partition = records.partitions.get(use_case, key)
    if partition is not None and partition.mode == "backfill":
        released = [
            (model.partition, model.version)
            for model in records.models.of(use_case)
            if model.state == "released" and model.partition <= key
        ]
        if not released:
            raise ConfigError(
                f"{use_case}: no model of {key} or before was released; name one with --version"
            )
        return max(released)[1]
    champion = records.routes.get(use_case).champion
    if champion is None:
        raise ConfigError(
            f"{use_case} has no champion yet; name a version with --version, or release one first"
        )
    return champion


def require_features(
    records: Records, use_case: UseCase, feature_set: FeatureSet, key: str
) -> None:
    """Refuse a partition that lacks features which can be alive at its as_of.

    Raises:
        MissingPartition: some are not there; the message has the command that fills them.
    """
    result = records.results.get(use_case.name, key, "materialize_features")
    fill = f"fill it with `evergreen run all --use-case {use_case.name} --partition {key}`"
    if result is None or result.state != "done":
        raise MissingPartition(
            f"{use_case.name}: the features of {key} are not computed; {fill}", keys=[key]
        )
    computed = FeatureOutputs.of(result).feature_sets
    if feature_set.version not in computed:
        have = sorted(computed)
        raise MissingPartition(
            f"{use_case.name}: {key} holds the feature sets {have}, the model reads "
            f"{feature_set.version}; {fill}",
            keys=[key],
        )
    feature_sets.require_results(
        records, use_case, feature_set, frames.required_at(use_case, feature_set, key)
    )


def _score_rows(
    use_case: UseCase, frame: pa.Table, predictor: ServedModel, model: Model
) -> pa.Table:
    """Return the scored entities, as they are stored.

    Raises:
        EvergreenError: the model gave something that is no number.
    """
    values = np.asarray(
        predictor.many(columns_of(frame, predictor.schema)) if len(frame) else (), dtype=np.float64
    )
    wrong = int((~np.isfinite(values)).sum())
    if wrong or len(values) != len(frame):
        raise EvergreenError(
            f"version {model.version} gave {wrong} scores that are no numbers for {len(frame)} "
            "rows; do not use it"
        )
    decision = use_case.decision
    decisions = pa.array([decision.below, decision.at_or_above], pa.string())
    rows = pa.table(
        {
            use_case.entity.key: frame.column(use_case.entity.key),
            "event_timestamp": frame.column("event_timestamp"),
            "score": pa.array(values),
            "decision": decisions.take(pa.array((values >= decision.threshold).astype(np.int64))),
            "version": pa.repeat(pa.scalar(model.version, pa.int64()), len(values)),
            "model_digest": pa.repeat(pa.scalar(model.model_digest, pa.string()), len(values)),
        }
    )
    return rows.cast(_schema(use_case))


def _schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of scores."""
    return pa.schema(
        [
            (use_case.entity.key, ARROW_TYPES[use_case.entity.type]),
            ("event_timestamp", pa.timestamp("us", tz="UTC")),
            ("score", pa.float64()),
            ("decision", pa.string()),
            ("version", pa.int64()),
            ("model_digest", pa.string()),
        ]
    )
