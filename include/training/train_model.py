"""Stage `train_model`: one LightGBM model of what is known at as_of, registered.

Inputs: all label and feature partitions up to this one (within `training.window`). Outputs: lake
table `training_set` (the exact rows, with their part), a bundle and the drift reference in the
store of artefacts, an MLflow run with a registered version, and a model on record. Too few mature
rows is a success without a candidate, which the judgement holds.

What is judged beside the model (rows, counts, shares, split, metrics) stands in the stage's outputs
and counts for its digest: a second training that gives an equal model finds the version on record,
whose manifest tells of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version as version_of
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from include.features import feature_sets
from include.lake.digests import combine, digest
from include.models import bundle, mlflow_registry
from include.models.kinds import DEFAULT, Fitted, kind_of
from include.models.pins import serving_pins
from include.pipeline import provenance
from include.pipeline.feature_outputs import FeatureOutputs
from include.pipeline.outputs import optional
from include.pipeline.stage import Input, Outcome, ReadBack, Stage, StageContext
from include.pipeline.training_outputs import JUDGED, Leaks, Manifest, TrainingOutputs, TrainingSet
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time.curated import training_table
from include.records.columns import json_digest
from include.records.records import Model, StageResult
from include.training import leaks, splits
from include.training.leak_findings import without_prose
from include.training.model_store import StoredBundle, store_bundle, store_reference
from include.training.training_inputs import find_inputs
from include.training.training_rows import Prepared, no_rows, prepare_rows

NAME = "train_model"
FIELDS = (
    "cadence",
    "cut_off",
    "availability",
    "history.first",
    "entity",
    "key_is_row_digest",
    "features",
    "label",
    "training",
    "decision.threshold",
    "gates.min_rows",
    "gates.max_feature_auc",
    "monitoring.sample",
)
KIND = kind_of(DEFAULT)
# lightgbm whatever the kind is: the leak gate fits small models of its own.
LIBRARIES = tuple(
    dict.fromkeys((*KIND.libraries, "lightgbm", "numpy", "pyarrow", "duckdb", "sqlglot", "mlflow"))
)

log = logging.getLogger(__name__)


def inputs(context: StageContext) -> list[Input]:
    """Return the digests of labels and of current features, of every partition that can matter.

    Raises:
        MissingPartition: some are not there; the message has the command that fills them.
    """
    current = feature_sets.current(context.use_case)
    validated, materialized = find_inputs(context, current)
    tables_of_labels = [(result.key, ValidationOutputs.of(result).labels) for result in validated]
    read = [Input("labels", key, table.digest) for key, table in tables_of_labels if table]
    for result in materialized:
        tables = FeatureOutputs.of(result).feature_sets[current.version]
        for view, table in tables.items():
            read.append(Input(f"features/{view}@{table.version}", result.key, table.digest))
    return read


def still_valid(pairs: Sequence[tuple[StageContext, StageResult]]) -> set[str]:
    """Return the partitions whose model has its files: one that was collected is trained again."""
    versions = {
        context.key: (context, TrainingOutputs.of(result).model_version)
        for context, result in pairs
    }
    return {
        key
        for key, (context, version) in versions.items()
        if version is None
        or (model := context.records.models.get(context.use_case.name, version)) is None
        or model.collected_at is None
    }


def compute(context: StageContext) -> Outcome:
    """Train, register and record the partition's candidate, or say why there is none."""
    use_case = context.use_case
    current = feature_sets.current(use_case)
    generation = context.records.routes.get(use_case.name).generation
    prepared = prepare_rows(context, current)
    if prepared.frame is None:
        return _no_candidate(context, prepared)
    findings = leaks.check(prepared.in_parts(splits.TRAIN, splits.TUNE), use_case)
    findings.refuse()
    training_set = _store_rows(context, prepared)
    fitted = KIND.fit(prepared.frame, prepared.parts, use_case, current.version)
    model_digest = bundle.digest_of(fitted.files)
    judged = TrainingOutputs(
        counts=prepared.counts,
        split=prepared.split,
        metrics=dict(fitted.metrics),
        feature_auc=dict(findings.feature_auc),
        leaks=findings.recorded(),
    )
    plain = judged.plain()
    numbers = json_digest(without_prose({name: plain[name] for name in JUDGED}))
    content = combine([training_set.digest, model_digest, numbers])
    if context.rehearsal:
        return Outcome("done", content)
    stored = store_bundle(context, fitted.files)
    reference = store_reference(context, current, prepared.versions)
    manifest = _manifest(context, current, prepared, fitted, judged, training_set, generation)
    manifest = msgspec.structs.replace(manifest, reference=reference)
    model = _register(context, fitted, manifest, current.version, model_digest, stored)
    outputs = msgspec.structs.replace(
        judged,
        candidate=model.version,
        version=model.version,
        run_id=model.run_id,
        model_digest=model_digest,
        feature_set=current.version,
        bundle=model.bundle,
        bundle_uri=stored.uri,
        reference=reference,
        training_set=training_set,
        weights=fitted.weights,
    )

    def record_model(session: Session) -> None:
        context.records.models.add(model, session=session)

    return Outcome("done", content, outputs=outputs.plain(), in_transaction=record_model)


def _manifest(
    context: StageContext,
    feature_set: feature_sets.FeatureSet,
    prepared: Prepared,
    fitted: Fitted,
    judged: TrainingOutputs,
    training_set: TrainingSet,
    generation: int,
) -> Manifest:
    """Return how the model came to be, but for its reference sample."""
    return Manifest(
        use_case=context.use_case.name,
        partition=context.key,
        as_of=context.as_of.isoformat(),
        mode=context.mode,
        training_set=training_set,
        tables=prepared.versions,
        feature_set=feature_set.to_dict(),
        split=prepared.split,
        counts=prepared.counts,
        rounds=fitted.rounds,
        params=fitted.params,
        metrics=optional(judged.metrics) or {},
        git_commit=provenance.git_commit(),
        lock=provenance.lock_digest(),
        libraries={name: version_of(name) for name in LIBRARIES},
        feature_auc=optional(judged.feature_auc) or {},
        leaks=optional(judged.leaks) or Leaks(),
        generation=generation,
    )


def _register(
    context: StageContext,
    fitted: Fitted,
    manifest: Manifest,
    feature_set: str,
    model_digest: str,
    stored: StoredBundle,
) -> Model:
    """Register the model in MLflow, once for a digest, and return it as it is to be recorded."""
    use_case, plain = context.use_case, manifest.plain()
    mlflow_registry.close_stale_runs(context.settings, use_case.name, context.key)
    registered = mlflow_registry.register(
        context.settings,
        mlflow_registry.TrainingRun(
            use_case=use_case.name,
            key=context.key,
            as_of=context.as_of.isoformat(),
            mode=context.mode,
            model_digest=model_digest,
            folder=stored.folder,
            params={
                **fitted.params,
                "rounds": fitted.rounds,
                "feature_set": feature_set,
                "training_set": plain["training_set"]["digest"],
            },
            metrics=fitted.metrics,
            manifest=plain,
        ),
        check=context.held.check,
    )
    return Model(
        use_case=use_case.name,
        version=registered.version,
        model_digest=model_digest,
        partition=context.key,
        as_of=context.as_of,
        mode=context.mode,
        feature_set=feature_set,
        bundle=stored.path,
        bundle_uri=stored.uri,
        reference_uri=optional(manifest.reference.uri) if manifest.reference else None,
        run_id=registered.run_id,
        pins=serving_pins(KIND),
        generation=manifest.generation or 0,
        manifest=plain,
    )


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Show in MLflow that a version, trained by a backfill, now belongs to a live partition."""
    version = TrainingOutputs.of(outcome).model_version
    model = None if version is None else context.records.models.get(context.use_case.name, version)
    if version is None or (model is not None and model.mode == context.mode):
        return {}
    changed = mlflow_registry.set_mode(
        context.settings, context.use_case.name, version, context.mode
    )
    return {"mode": context.mode} if changed else {}


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield the training set with its digest on record and that of the lake's rows."""
    recorded = optional(TrainingOutputs.of(result).training_set)
    if recorded is not None:
        rows = context.lake.read(recorded.table, keys=[result.key], version=recorded.table_version)
        order = ["event_timestamp", context.use_case.entity.key]
        found = digest(rows, sort_by=order)
        yield ReadBack(recorded.table, result.key, recorded.digest, found)


def _no_candidate(context: StageContext, prepared: Prepared) -> Outcome:
    """Return the outcome of too few rows; a training set of an earlier run is emptied."""
    reason = prepared.reason
    log.info("training %s %s: no candidate, %s", context.use_case.name, context.key, reason)
    nothing = no_rows(context.use_case)
    table = training_table(context.lake, context.use_case, nothing.schema)
    context.lake.replace(table, context.key, nothing, fence=context.fence)
    outputs = TrainingOutputs(reason=reason, counts=prepared.counts, split=prepared.split).plain()
    content = json_digest({name: outputs[name] for name in ("counts", "split")})
    return Outcome("done", combine(["no_candidate", content]), reason, outputs)


def _store_rows(context: StageContext, prepared: Prepared) -> TrainingSet:
    """Put the training rows into the lake, each with the name of its part."""
    rows = prepared.with_part_names()
    content = digest(rows, sort_by=["event_timestamp", context.use_case.entity.key])
    table = training_table(context.lake, context.use_case, rows.schema)
    version = context.lake.replace(table, context.key, rows, fence=context.fence)
    return TrainingSet(table=table, digest=content, table_version=version, rows=len(rows))


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    still_valid=still_valid,
    read_back=read_back,
)
