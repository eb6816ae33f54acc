"""Stage `check_drift`: population stability of every feature of all entities against a reference
that is never its own rows.

The reference is the sample that training kept of the opponent's features at its own `as_of`, if
that is of an older partition; otherwise the partition before, marked so; with neither the verdict
is a hold. Views of grain event compare the rows that are new in the partition with those of the
reference's training window; a view of snapshots is compared over the entities for which it is
alive, and the share that it lost since the reference is a number of its own. The verdict comes from
the index alone; the HTML report is for people and changes nothing. When live, closed segments of
the prediction log are imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.durations import midnight
from include.errors import ArtefactError
from include.evaluation.verdict import judgement
from include.features import feature_sets, frames, population
from include.features.feature_sets import FeatureSet, FeatureView
from include.lake.digests import combine
from include.lake.sql import connect, quote
from include.monitoring import drift_report, psi
from include.monitoring.psi import Stability
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.pipeline.unseen import unreadable_outcome
from include.point_in_time import partitions
from include.predictions import import_segments
from include.records.audit import AuditEntry
from include.records.records import Model

NAME = "check_drift"
FIELDS = (
    "cadence",
    "cut_off",
    "availability",
    "history.first",
    "entity",
    "features",
    "label.source",
    "label.sql",
    "training.window",
    "monitoring",
)
LIBRARIES = ("numpy", "pyarrow", "duckdb")
PASS, DRIFT, HOLD = "pass", "drift", "hold"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """What a partition is compared with; without a model it is the partition before."""

    key: str
    feature_set: FeatureSet
    model: Model | None = None

    @property
    def kind(self) -> str:
        """Which of the two references it is: the `opponent` it is judged against, or the
        partition `before`.
        """
        return "before" if self.model is None else "opponent"


@dataclass(frozen=True)
class Sides:
    """The rows that are compared, by view: its features of the reference and of the partition."""

    reference: Mapping[str, pa.Table]
    current: Mapping[str, pa.Table]
    lost: Mapping[str, float | None]

    def counted(self) -> dict[str, dict[str, Any]]:
        """Return how many rows are compared of each view, and the share of the reference's
        entities that it lost.
        """
        return {
            view: {
                "reference": len(rows),
                "current": len(self.current[view]),
                "lost": self.lost.get(view),
            }
            for view, rows in self.reference.items()
        }


def inputs(context: StageContext) -> list[Input]:
    """Return the digests of the judgement, of the reference's model, and of the feature rows that
    are compared.

    Raises:
        MissingPartition: the partition is not judged, or its features are not there.
    """
    judged = judgement(context)
    found = [Input("evaluate_model", context.key, judged.digest)]
    reference = choose(context)
    if reference is None:
        return found
    snapshots = FeatureSet(
        tuple(view for view in reference.feature_set.views if view.grain == "snapshot")
    )
    if snapshots.views:
        for key in {context.key} if reference.model else {context.key, reference.key}:
            needed = frames.required_at(context.use_case, snapshots, key)
            feature_sets.require_results(context.records, context.use_case, snapshots, needed)
    if reference.model is not None:
        found.append(Input("model", reference.key, reference.model.model_digest))
    for result in context.records.results.of(
        context.use_case.name, stage="materialize_features", keys=_feature_keys(context, reference)
    ):
        made = result.outputs.get("feature_sets", {}).get(reference.feature_set.version, {})
        found += [
            Input(f"features/{view}@{one['version']}", result.key, one["digest"])
            for view, one in made.items()
        ]
    return found


def compute(context: StageContext) -> Outcome:
    """Compare the partition with its reference; a drift is a success of this stage."""
    reference = choose(context)
    if reference is None:
        return _outcome(
            context,
            None,
            {},
            HOLD,
            ["no reference: no opponent of an older partition, and no partition before"],
            None,
        )
    sides = sides_of(context, reference)
    found: dict[str, Stability] = {}
    for view in reference.feature_set.views:
        found |= psi.stability(sides.reference[view.name], sides.current[view.name], view.columns)
    verdict, reasons = judge(found, context.use_case.monitoring.psi)
    return _outcome(context, reference, found, verdict, reasons, sides)


def unreadable(context: StageContext, error: Exception) -> Outcome:
    """Return the comparison that was not made, with the reference that it is about."""
    about: dict[str, Any] = {
        "reference": None,
        "limit": context.use_case.monitoring.psi,
        "features": {},
    }
    return unreadable_outcome(context, NAME, error, about)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Import the closed segments of the prediction log into the lake."""
    imported = import_segments.import_closed(
        context.settings, context.lake, context.records, context.use_case.name
    )
    return {"predictions": imported} if imported else {}


def judge(found: Mapping[str, Stability], limit: float) -> tuple[str, list[str]]:
    """Return the verdict and its reasons: drift above the limit, a hold where something cannot
    be computed.
    """
    moved = [name for name, one in found.items() if one.psi is not None and one.psi > limit]
    unknown = [name for name, one in found.items() if one.psi is None]
    reasons = [f"{name}: PSI {found[name].psi:.3f} is above {limit:g}" for name in moved]
    reasons += [f"{name}: not computable, {found[name].note}" for name in unknown]
    if not found:
        return HOLD, ["no feature to compare"]
    return (DRIFT if moved else HOLD if unknown else PASS), reasons


def choose(context: StageContext) -> Reference | None:
    """Return the reference of a partition, or None where there is neither an older opponent nor
    a partition before.
    """
    name = context.use_case.name
    (own,) = context.need("materialize_features", [context.key])
    judged = judgement(context)
    version = judged.outputs.get("opponent")
    model = None if version is None else context.records.models.get(name, version)
    if (
        model is not None
        and model.partition < context.key
        and model.feature_set in own.outputs["feature_sets"]
    ):
        return Reference(
            model.partition, feature_sets.recorded(context.records, name, model.feature_set), model
        )
    before = partitions.earlier(context.use_case, context.key)
    result = context.result("materialize_features", before) if before else None
    current = feature_sets.current(context.use_case)
    if (
        before is None
        or result is None
        or result.state != "done"
        or current.version not in result.outputs["feature_sets"]
    ):
        return None
    return Reference(before, current)


def sides_of(context: StageContext, reference: Reference) -> Sides:
    """Return the rows to compare.

    Raises:
        ArtefactError: the sample that training kept is gone or damaged.
    """
    views = reference.feature_set.views
    expected, actual = {}, {}
    lost: dict[str, float | None] = {}
    snapshots = [view for view in views if view.grain == "snapshot"]
    if snapshots:
        here = _entities(context, reference, context.key)
        there = (
            _sample(reference.model)
            if reference.model
            else _entities(context, reference, reference.key)
        )
        for view in snapshots:
            before, now = _alive(there, view), _alive(here, view)
            if before is None:  # a sample of before said nothing of who is there
                before, now = _known(there, view), _known(here, view)
            expected[view.name], actual[view.name] = (
                _columns(there.filter(before), view),
                _columns(here.filter(now), view),
            )
            lost[view.name] = _lost(there.filter(before), here.filter(now), view)
    for view in views:
        if view.grain == "event":
            expected[view.name] = _new_rows(
                context, view, _window(context, reference), reference.model
            )
            actual[view.name] = _new_rows(context, view, [context.key], None)
    return Sides(expected, actual, lost)


def _feature_keys(context: StageContext, reference: Reference) -> list[str]:
    """Return the partitions whose feature rows can matter to either side."""
    ttl = max(view.ttl for view in reference.feature_set.views)
    keys = set(partitions.lookback(context.use_case, context.key, ttl))
    if reference.model is None:
        keys |= set(partitions.lookback(context.use_case, reference.key, ttl))
    if any(view.grain == "event" for view in reference.feature_set.views):
        keys |= set(_window(context, reference))
    return sorted(keys)


def _entities(context: StageContext, reference: Reference, key: str) -> pa.Table:
    """Return the features of all who are there at the `as_of` of a partition."""
    as_of = partitions.period(context.use_case, key).as_of
    return population.population_at(context.lake, context.use_case, reference.feature_set, as_of)


def _alive(rows: pa.Table, view: FeatureView) -> pa.ChunkedArray | None:
    name = population.alive_column(view)
    return rows.column(name) if name in rows.column_names else None


def _known(rows: pa.Table, view: FeatureView) -> pa.Array:
    """Return which rows have any value of a view: of an expired view all are null."""
    known = np.zeros(len(rows), dtype=bool)
    for column in _columns(rows, view).columns:
        known |= np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), dtype=bool)
    return pa.array(known)


def _lost(before: pa.Table, now: pa.Table, view: FeatureView) -> float | None:
    """Return the share of the reference's entities for which the view is alive no longer; None
    where nobody was.
    """
    if not len(before):
        return None
    here = pc.unique(now.column(view.key)).cast(before.schema.field(view.key).type)
    return 1 - float(pc.mean(pc.is_in(before.column(view.key), here).cast(pa.int8())).as_py())


def _sample(model: Model) -> pa.Table:
    import pyarrow.parquet as pq

    kept = model.manifest.get("reference") or {}
    path = Path(str(kept.get("path", "")))
    try:
        rows = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ArtefactError(
            f"the reference sample of version {model.version}, {path}, cannot be read: {reason}"
        ) from None
    if len(rows) != kept["rows"]:
        raise ArtefactError(
            f"the reference sample of version {model.version}, {path}, has {len(rows)} rows, not "
            f"{kept['rows']}"
        )
    return rows


def _window(context: StageContext, reference: Reference) -> list[str]:
    """Return the partitions of the reference's training window; without an opponent, the one
    partition before.
    """
    if reference.model is None:
        return [reference.key]
    end = partitions.period(context.use_case, reference.key).as_of
    span: timedelta = context.use_case.training.window or end - midnight(
        context.use_case.history.first
    )
    return partitions.lookback(context.use_case, reference.key, span)


def _new_rows(
    context: StageContext, view: FeatureView, keys: Sequence[str], model: Model | None
) -> pa.Table:
    """Return the event rows of partitions, at most `monitoring.sample` of them, the same ones
    every time.
    """
    table = view.table(context.use_case.name)
    version = None if model is None else model.manifest.get("tables", {}).get(table)
    chosen = ", ".join(quote(name) for name in view.columns)
    order = f"hash({quote(view.key)}, event_timestamp, created_timestamp), {chosen}"
    with connect() as con:
        context.lake.scan(con, "rows", table, keys=keys, version=version, schema=view.schema)
        return con.sql(
            f"SELECT {chosen} FROM rows ORDER BY {order} LIMIT {context.use_case.monitoring.sample}"
        ).to_arrow_table()


def _columns(rows: pa.Table, view: FeatureView) -> pa.Table:
    return rows.select([name for name in view.columns if name in rows.column_names])


def _outcome(
    context: StageContext,
    reference: Reference | None,
    found: Mapping[str, Stability],
    verdict: str,
    reasons: Sequence[str],
    sides: Sides | None,
) -> Outcome:
    features = {name: one.as_json() for name, one in found.items()}
    compared = None
    if reference is not None:
        number = reference.model.version if reference.model else None
        compared = {"kind": reference.kind, "partition": reference.key, "version": number}
    content = [
        f"{name}:{'' if one['psi'] is None else round(one['psi'], 9)}"
        for name, one in features.items()
    ]
    lost = {} if sides is None else sides.lost
    content += [f"lost/{view}:{share:.9f}" for view, share in lost.items() if share is not None]
    outputs: dict[str, Any] = {
        "verdict": verdict,
        "reasons": list(reasons),
        "reference": compared,
        "limit": context.use_case.monitoring.psi,
        "features": features,
        "views": {} if sides is None else sides.counted(),
    }
    against = reference.model.model_digest if reference and reference.model else ""
    digest = combine(
        [
            verdict,
            reference.kind if reference else "",
            reference.key if reference else "",
            against,
            *content,
        ]
    )
    reason = "; ".join(reasons) if verdict != HOLD else f"hold: {'; '.join(reasons)}"
    if not context.rehearsal:
        outputs["report"] = _report(context, reference, sides or Sides({}, {}, {}), outputs)
    worst = sorted(
        ((one["psi"], name) for name, one in features.items() if one["psi"] is not None),
        reverse=True,
    )[:5]
    details = {
        "verdict": verdict,
        "reasons": list(reasons)[:20],
        "reference": compared,
        "worst": [[n, v] for v, n in worst],
    }
    entry = AuditEntry(
        "drift.judged",
        context.use_case.name,
        context.key,
        context.actor,
        {**details, "mode": context.mode},
        context.started,
    )
    log.info("drift %s %s: %s %s", context.use_case.name, context.key, verdict, reason)
    return Outcome("held" if verdict == HOLD else "done", digest, reason, outputs, entries=(entry,))


def _report(
    context: StageContext, reference: Reference | None, sides: Sides, outputs: Mapping[str, Any]
) -> str | None:
    """Write the HTML report; a failure is logged, and the verdict stands."""
    path = context.settings.home / "reports" / context.use_case.name / context.key / "drift.html"
    kinds = {} if reference is None else reference.feature_set.feature_types
    try:
        drift_report.write_report(
            path,
            context.use_case,
            context.key,
            context.mode,
            outputs,
            reference=sides.reference,
            current=sides.current,
            kinds=kinds,
        )
    except OSError as error:
        log.warning(
            "drift %s %s: no report could be written: %s", context.use_case.name, context.key, error
        )
        return None
    return str(path)


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    unreadable=unreadable,
)
