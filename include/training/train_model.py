"""Stage `train_model`: mature labels known at as_of, features as known at each decision, one
LightGBM model, registered.

Inputs: all label and feature partitions up to this one (within `training.window`). Outputs: lake
table `training_set` (the exact rows, with their part), a bundle and the drift reference under
HOME/models, an MLflow run with a registered version, and a model on record. Too few mature rows is
a success without a candidate, which the judgement holds.

What is judged beside the model (rows, counts, shares, split, metrics) stands in the stage's outputs
and counts for its digest: a second training that gives an equal model finds the version on record,
whose manifest tells of the first.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.errors import EvergreenError, MissingPartition
from include.features import feature_sets, frames
from include.lake.digests import combine, digest
from include.models import bundle, mlflow_registry
from include.models.kinds import DEFAULT, Fitted, kind_of
from include.models.matrix import Parts
from include.models.pins import serving_pins
from include.pipeline import provenance
from include.pipeline.stage import Input, Outcome, ReadBack, Stage, StageContext
from include.point_in_time import partitions
from include.point_in_time.curated import label_table, training_table
from include.records.records import Model, StageResult
from include.records.schema import json_digest
from include.training import leaks, splits
from include.validation import labels

NAME = "train_model"
FIELDS = (
    "cadence",
    "cut_off",
    "availability",
    "history.first",
    "entity",
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
    dict.fromkeys((*KIND.libraries, "lightgbm", "numpy", "pyarrow", "duckdb", "mlflow"))
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROS = 1_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The rows of a training, sorted by time and entity, and what is to be known of them; no frame:
    too few.

    `parts` are those of the frame's rows; embargoed decisions are not among them.
    """

    frame: pa.Table | None
    parts: Parts
    split: dict[str, Any]
    counts: dict[str, Any]
    versions: dict[str, int | None]
    reason: str = ""


def inputs(context: StageContext) -> list[Input]:
    """Return the recorded digests of labels and of the current feature set, for every partition
    that can matter.

    Raises:
        MissingPartition: some are not there; the message has the command that fills them.
    """
    current = feature_sets.current(context.use_case)
    validated, built = _inputs(context, current)
    found = [
        Input("labels", row.key, row.outputs["labels"]["digest"])
        for row in validated
        if row.outputs.get("labels")
    ]
    for row in built:
        for view, made in row.outputs["feature_sets"][current.version].items():
            found.append(Input(f"features/{view}@{made['version']}", row.key, made["digest"]))
    return found


def compute(context: StageContext) -> Outcome:
    """Train, register and record the partition's candidate, or say why there is none."""
    use_case = context.use_case
    current = feature_sets.current(use_case)
    generation = context.records.routes.get(use_case.name).generation
    prepared = prepare(context, current)
    if prepared.frame is None:
        log.info("training %s %s: no candidate, %s", use_case.name, context.key, prepared.reason)
        told = {"counts": prepared.counts, "split": prepared.split}
        outputs: dict[str, Any] = {"candidate": None, "reason": prepared.reason, **told}
        nothing = _empty(context)
        context.lake.replace(
            training_table(context.lake, use_case, nothing.schema),
            context.key,
            nothing,
            fence=context.fence,
        )
        return Outcome(
            "done", combine(["no_candidate", json_digest(told)]), prepared.reason, outputs
        )
    trained = prepared.frame.filter(
        pa.array(prepared.parts != splits.PARTS.index(splits.EVALUATION))
    )
    leaking = leaks.check(trained, use_case)
    leaking.refuse()
    names = pa.array(splits.PARTS, pa.string()).take(pa.array(prepared.parts, pa.int8()))
    rows = prepared.frame.append_column("split", names)
    content = digest(rows, sort_by=["event_timestamp", use_case.entity.key])
    table = training_table(context.lake, use_case, rows.schema)
    version = context.lake.replace(table, context.key, rows, fence=context.fence)
    fitted = KIND.fit(prepared.frame, prepared.parts, use_case, current.version)
    model_digest = bundle.digest_of(fitted.files)
    judged = {"counts": prepared.counts, "split": prepared.split, "metrics": fitted.metrics}
    judged |= {"feature_auc": dict(leaking.alone), "leaks": leaking.to_dict()}
    answer = combine([content, model_digest, json_digest(leaks.without_prose(judged))])
    if context.rehearsal:
        return Outcome("done", answer)
    training_set = {"table": table, "digest": content, "table_version": version, "rows": len(rows)}
    manifest = _manifest(context, current, prepared, fitted, training_set)
    manifest |= {**judged, "generation": generation}
    folder = _store(context, fitted, model_digest)
    manifest["reference"] = _reference(context, current, prepared.versions, folder)
    mlflow_registry.close_stale_runs(context.settings, use_case.name, context.key)
    made = mlflow_registry.register(
        context.settings,
        mlflow_registry.TrainingRun(
            use_case=use_case.name,
            key=context.key,
            as_of=context.as_of.isoformat(),
            mode=context.mode,
            model_digest=model_digest,
            folder=folder / "bundle",
            params={
                **fitted.params,
                "rounds": fitted.rounds,
                "feature_set": current.version,
                "training_set": content,
            },
            metrics=fitted.metrics,
            manifest=manifest,
        ),
        check=context.held.check,
    )
    model = Model(
        use_case=use_case.name,
        version=made.version,
        model_digest=model_digest,
        partition=context.key,
        as_of=context.as_of,
        mode=context.mode,
        feature_set=current.version,
        bundle=str(folder / "bundle"),
        run_id=made.run_id,
        pins=serving_pins(KIND),
        generation=generation,
        manifest=manifest,
    )
    outputs = {
        "candidate": made.version,
        "version": made.version,
        "run_id": made.run_id,
        "model_digest": model_digest,
        "feature_set": current.version,
        "bundle": model.bundle,
        "reference": manifest["reference"],
        "training_set": training_set,
        **judged,
    }
    return Outcome(
        "done",
        answer,
        outputs=outputs,
        in_transaction=lambda session: _discard(context.records.models.add(model, session=session)),
    )


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Show in MLflow that a version which was trained by a backfill now belongs to a live
    partition.
    """
    version = outcome.outputs.get("version")
    model = None if version is None else context.records.models.get(context.use_case.name, version)
    if version is None or (model is not None and model.mode == context.mode):
        return {}
    changed = mlflow_registry.set_mode(
        context.settings, context.use_case.name, version, context.mode
    )
    return {"mode": context.mode} if changed else {}


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield the training set with its digest on record and that of the lake's rows."""
    if made := result.outputs.get("training_set"):
        rows = context.lake.read(made["table"], keys=[result.key], version=made["table_version"])
        order = ["event_timestamp", context.use_case.entity.key]
        yield ReadBack(made["table"], result.key, made["digest"], digest(rows, sort_by=order))


def prepare(context: StageContext, feature_set: feature_sets.FeatureSet) -> Prepared:
    """Return the training rows: the spine of as_of within window and max_rows, split, with their
    features.
    """
    use_case, training = context.use_case, context.use_case.training
    versions = frames.table_versions(context.lake, use_case, feature_set)
    since = None if training.window is None else context.as_of - training.window
    spine = frames.spine(
        context.lake,
        use_case,
        context.as_of,
        version=versions[label_table(context.lake, use_case)],
        since=since,
    )
    key = use_case.entity.key
    known = spine.rows.sort_by([("event_timestamp", "ascending"), (key, "ascending")])
    kept = splits.subsample(
        known.column(key).to_pylist(), _moments(known), limit=training.max_rows, seed=training.seed
    )
    known = known.take(pa.array(kept))
    entities, moments = known.column(key).to_pylist(), _moments(known)
    how = splits.boundaries(
        moments, training.split, embargo=training.embargo, delay=use_case.label.delay
    )
    parts = splits.assign(entities, moments, training.split, training.seed, how)
    embargoed = parts == splits.NO_PART
    known, parts, moments = (
        known.filter(pa.array(~embargoed)),
        parts[~embargoed],
        moments[~embargoed],
    )
    counts = _counts(parts, known) | {
        "mature": len(spine.rows),
        "used": len(known),
        "embargoed": int(embargoed.sum()),
        "immature": spine.immature,
        **_shares(use_case, spine, how),
    }
    split = _split(how, parts, moments, context.as_of)
    reason = how.reason or _too_few(counts, use_case.gates.min_rows)
    if reason:
        reason = f"{_censored(counts, use_case.label.max_censored)}too few mature rows: {reason}"
        return Prepared(None, parts, split, counts, versions, reason)
    frame = frames.training_frame(
        context.settings,
        use_case,
        feature_set,
        replace(spine, rows=known),
        versions,
        records=context.records,
    )
    if len(frame) != len(known):
        raise EvergreenError(
            f"{use_case.name}: the join returned {len(frame)} rows for {len(known)} decisions; "
            "report this"
        )
    columns = [key, "event_timestamp", "label", *feature_set.feature_types]
    return Prepared(frame.select(columns), parts, split, counts, versions)


def _inputs(
    context: StageContext, current: feature_sets.FeatureSet
) -> tuple[list[StageResult], list[StageResult]]:
    """Return the validation and features results up to this partition; where all sources allow
    gaps, those that are there.
    """
    use_case = context.use_case
    keys = partitions.training_lookback(use_case, context.key)
    if all(source.gaps == "allow" for source in use_case.sources.values()):
        there = {
            where
            for where, state in context.records.results.states(use_case.name).items()
            if state == "done"
        }
        keys = [
            key
            for key in keys
            if key == context.key
            or {("validate_data", key), ("materialize_features", key)} <= there
        ]
    validated, built = (
        context.need("validate_data", keys),
        context.need("materialize_features", keys),
    )
    _labelled(context, validated)
    lacking = feature_sets.lacking(built, current)
    if lacking:
        fill = f"`evergreen load-history {use_case.name} --from {lacking[0]} --to {lacking[-1]}`"
        raise MissingPartition(
            f"{use_case.name}: {len(lacking)} partitions ({lacking[0]} to {lacking[-1]}) do not "
            f"hold feature set {current.version}, which is defined now. Fill them with {fill}",
            keys=lacking,
        )
    return validated, built


def _labelled(context: StageContext, validated: Sequence[StageResult]) -> None:
    """Refuse labels of another definition than today's, or in the table of other types, which the
    spine would not see.

    Raises:
        MissingPartition: some are; the message has the command that fills them.
    """
    use_case = context.use_case
    table, rules = label_table(context.lake, use_case), labels.rules_digest(use_case)
    lacking = []
    for row in validated:
        made = row.outputs.get("labels") or {}
        here = (
            made.get("table", f"{use_case.name}/labels") == table
            and made.get("rules", rules) == rules
        )
        if made.get("rows") and not here:
            lacking.append(row.key)
    if lacking:
        fill = f"`evergreen load-history {use_case.name} --from {lacking[0]} --to {lacking[-1]}`"
        raise MissingPartition(
            f"{use_case.name}: {len(lacking)} partitions ({lacking[0]} to {lacking[-1]}) hold no "
            f"labels as label is defined now. Fill them with {fill}",
            keys=lacking,
        )


def _moments(rows: pa.Table) -> NDArray[np.int64]:
    column = rows.column("event_timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _counts(parts: Parts, rows: pa.Table) -> dict[str, Any]:
    labels = np.asarray(rows.column("label").cast(pa.float64()).to_numpy(zero_copy_only=False))
    counts: dict[str, Any] = {
        name: {
            "rows": int((parts == number).sum()),
            "positive": int((labels[parts == number] == 1.0).sum()),
        }
        for number, name in enumerate(splits.PARTS)
    }
    return counts


def _shares(use_case: UseCase, spine: frames.Spine, how: splits.Boundaries) -> dict[str, Any]:
    """Count censored and restated decisions of the window, and of the evaluation part, thinned
    or not.
    """
    split, seed = use_case.training.split, use_case.training.seed
    entities = spine.mature.column(use_case.entity.key).to_pylist()
    judged = splits.judged(entities, _moments(spine.mature), split, seed, how)
    found: dict[str, Any] = {"decisions": len(spine.mature), "decisions_judged": int(judged.sum())}
    for name in ("censored", "restated"):
        flags = np.asarray(
            spine.mature.column(f"__{name}").to_numpy(zero_copy_only=False), dtype=bool
        )
        found[name], found[f"{name}_judged"] = int(flags.sum()), int(flags[judged].sum())
        found[f"{name}_share"] = float(flags.mean()) if len(flags) else 0.0
        found[f"{name}_share_judged"] = float(flags[judged].mean()) if judged.any() else 0.0
    return found


def _censored(counts: dict[str, Any], limit: float) -> str:
    """Say where so many decisions have no outcome that this, and no short history, is why rows
    are few.
    """
    share = max(counts["censored_share"], counts["censored_share_judged"])
    if share <= limit:
        return ""
    return (
        f"{counts['censored']:,} of {counts['decisions']:,} decisions past label.delay have no "
        f"known outcome ({share:.1%}, the limit is {limit:.1%}; look at the label's source and "
        "its times); "
    )


def _too_few(counts: dict[str, Any], limit: int) -> str:
    """Say which part lacks rows of a class: the evaluation part needs `gates.min_rows`, the
    others need to be trainable.
    """
    for name, least in ((splits.EVALUATION, limit), (splits.TRAIN, 2), (splits.TUNE, 2)):
        positive = counts[name]["positive"]
        negative = counts[name]["rows"] - positive
        if min(positive, negative) < least:
            taken = (
                f" ({counts['embargoed']:,} rows are embargoed)"
                if counts["embargoed"] and name != splits.EVALUATION
                else ""
            )
            return (
                f"the {name} part has {positive} of class 1 and {negative} of class 0; each "
                f"class needs {least}{taken}"
            )
    return ""


def _split(
    how: splits.Boundaries, parts: Parts, moments: NDArray[np.int64], as_of: datetime
) -> dict[str, Any]:
    """Return the boundaries, and in seconds how much older the newest trained decision is than
    what is judged, and served.
    """
    evaluation = parts == splits.PARTS.index(splits.EVALUATION)
    trained = (
        moments[~evaluation].max(initial=np.iinfo(np.int64).min) if (~evaluation).any() else None
    )
    judged = None
    if trained is not None and evaluation.any() and how.by == "time":
        judged = float(moments[evaluation].min() - trained) / MICROS
    serving = None if trained is None else (_micros(as_of) - int(trained)) / MICROS
    return {
        "by": how.by,
        "tune_from": _instant(how.tune_from),
        "evaluation_from": _instant(how.evaluation_from),
        "gap_when_judged": judged,
        "gap_when_serving": serving,
    }


def _manifest(
    context: StageContext,
    current: feature_sets.FeatureSet,
    prepared: Prepared,
    fitted: Fitted,
    training_set: dict[str, Any],
) -> dict[str, Any]:
    return {
        "use_case": context.use_case.name,
        "partition": context.key,
        "as_of": context.as_of.isoformat(),
        "mode": context.mode,
        "training_set": training_set,
        "tables": prepared.versions,
        "feature_set": current.to_dict(),
        "split": prepared.split,
        "counts": prepared.counts,
        "rounds": fitted.rounds,
        "params": fitted.params,
        "metrics": fitted.metrics,
        "git_commit": provenance.git_commit(),
        "lock": provenance.lock_digest(),
        "libraries": {name: version_of(name) for name in LIBRARIES},
    }


def _instant(micros: int | None) -> str | None:
    return None if micros is None else (EPOCH + timedelta(microseconds=micros)).isoformat()


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _store(context: StageContext, fitted: Fitted, model_digest: str) -> Path:
    """Write the bundle under its digest and return its folder; what killed trainings of the
    partition left is removed.
    """
    home = (
        context.settings.home
        / "models"
        / mlflow_registry.name_of(context.use_case.name)
        / context.key
    )
    folder = home / model_digest.removeprefix("sha256:")[:16]
    context.held.check()
    home.mkdir(parents=True, exist_ok=True)
    recorded = {
        Path(model.bundle).parent
        for model in context.records.models.of(context.use_case.name)
        if model.partition == context.key
    }
    for other in home.iterdir():
        if other not in recorded:
            shutil.rmtree(other)
    if (folder / "bundle").is_dir():
        bundle.verify_bundle(folder / "bundle", model_digest)
    else:
        scratch = home / f".{folder.name}.{context.held.token}"
        (scratch / "bundle").mkdir(parents=True)
        for name, content in fitted.files.items():
            (scratch / "bundle" / name).write_bytes(content)
        scratch.rename(folder)
    return folder


def _reference(
    context: StageContext,
    current: feature_sets.FeatureSet,
    versions: dict[str, int | None],
    folder: Path,
) -> dict[str, Any]:
    """Keep a sample of the features of all who are there at as_of beside the bundle: what later
    partitions are compared with.
    """
    use_case = context.use_case
    rows = frames.population_at(context.lake, use_case, current, context.as_of, versions=versions)
    entities = rows.column(use_case.entity.key).to_pylist()
    kept = splits.subsample(
        entities,
        np.zeros(len(rows), dtype=np.int64),
        limit=use_case.monitoring.sample,
        seed=use_case.training.seed,
    )
    path = folder / "reference.parquet"
    temporary = path.with_name(f".{path.name}.{context.held.token}")
    pq.write_table(rows.take(pa.array(kept)), temporary, compression="zstd")
    temporary.replace(path)
    return {
        "path": str(path),
        "rows": len(kept),
        "entities": len(rows),
        "as_of": context.as_of.isoformat(),
    }


def _empty(context: StageContext) -> pa.Table:
    from include.point_in_time.curated import ARROW_TYPES

    key = (context.use_case.entity.key, ARROW_TYPES[context.use_case.entity.type])
    columns = [
        key,
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("label", pa.float64()),
        ("split", pa.string()),
    ]
    return pa.schema(columns).empty_table()


def _discard(_: object) -> None:
    return None


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    read_back=read_back,
)
