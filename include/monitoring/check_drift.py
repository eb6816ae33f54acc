"""Stage `check_drift`: population stability of every feature against a reference.

The reference is the sample that training kept of the opponent's features at its own `as_of`, if
that is of an older partition; otherwise the partition before, marked so; with neither the verdict
is a hold. It is never the partition's own rows. Views of grain event compare the rows that are new
in the partition with those of the reference's training window; a view of snapshots is compared over
the entities for which it is alive, and the share that it lost since the reference is a number of
its own. The verdict comes from the index alone; the HTML report is for people and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from include.errors import Unavailable
from include.evaluation.verdict import judgement
from include.features import feature_sets, frames
from include.features.feature_sets import FeatureSet
from include.lake.digests import combine
from include.monitoring import drift_report, psi
from include.monitoring.compared_rows import NO_SIDES, Sides, read_sides
from include.monitoring.psi import Stability
from include.monitoring.references import Reference, choose_reference, feature_keys
from include.pipeline.drift_outputs import DriftOutputs
from include.pipeline.feature_outputs import FeatureOutputs
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.pipeline.unseen import unreadable_outcome
from include.records.audit import AuditEntry

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
LIBRARIES = ("numpy", "pyarrow", "duckdb", "sqlglot")
NO_REFERENCE = "no reference: no opponent of an older partition, and no partition before"
AUDITED_REASONS, AUDITED_FEATURES = 20, 5  # the most that the audit row holds

DriftVerdict = Literal["pass", "drift", "hold"]

log = logging.getLogger(__name__)


def inputs(context: StageContext) -> list[Input]:
    """Return the digests of the judgement, of the reference's model, and of the rows compared.

    Raises:
        MissingPartition: the partition is not judged, or its features are not there.
    """
    read = [Input("evaluate_model", context.key, judgement(context).digest)]
    reference = choose_reference(context)
    if reference is None:
        return read
    snapshots = FeatureSet(
        tuple(view for view in reference.feature_set.views if view.grain == "snapshot")
    )
    if snapshots.views:
        for key in {context.key} if reference.model else {context.key, reference.key}:
            needed = frames.required_at(context.use_case, snapshots, key)
            feature_sets.require_results(context.records, context.use_case, snapshots, needed)
    if reference.model is not None:
        read.append(Input("model", reference.key, reference.model.model_digest))
    for result in context.records.results.of(
        context.use_case.name, stage="materialize_features", keys=feature_keys(context, reference)
    ):
        sets = FeatureOutputs.of(result).feature_sets
        read += [
            Input(f"features/{view}@{table.version}", result.key, table.digest)
            for view, table in sets.get(reference.feature_set.version, {}).items()
        ]
    return read


def compute(context: StageContext) -> Outcome:
    """Compare the partition with its reference; a drift is a success of this stage."""
    limit = context.use_case.monitoring.psi
    reference = choose_reference(context)
    if reference is None:
        outputs = DriftOutputs(verdict="hold", reasons=[NO_REFERENCE], limit=limit, views={})
        return _outcome(context, None, NO_SIDES, outputs)
    sides = read_sides(context, reference)
    indices: dict[str, Stability] = {}
    for view in reference.feature_set.views:
        indices |= psi.stability(sides.reference[view.name], sides.current[view.name], view.columns)
    verdict, reasons = decide_verdict(indices, limit)
    outputs = DriftOutputs(
        verdict=verdict,
        reasons=reasons,
        reference=reference.recorded(),
        limit=limit,
        features={name: stability.recorded() for name, stability in indices.items()},
        views=sides.counted(),
    )
    return _outcome(context, reference, sides, outputs)


def unreadable(context: StageContext, error: Exception) -> Outcome:
    """Return the comparison that was not made."""
    about: dict[str, Any] = {
        "reference": None,
        "limit": context.use_case.monitoring.psi,
        "features": {},
    }
    return unreadable_outcome(context, NAME, error, about)


def decide_verdict(
    indices: Mapping[str, Stability], limit: float
) -> tuple[DriftVerdict, list[str]]:
    """Return the verdict and its reasons.

    It is drift where an index is above the limit, and else a hold where one is not computable.
    """
    if not indices:
        return "hold", ["no feature to compare"]
    drifted = {
        name: one.psi for name, one in indices.items() if one.psi is not None and one.psi > limit
    }
    unknown = {name: one.note for name, one in indices.items() if one.psi is None}
    reasons = [f"{name}: PSI {index:.3f} is above {limit:g}" for name, index in drifted.items()]
    reasons += [f"{name}: not computable, {note}" for name, note in unknown.items()]
    return ("drift" if drifted else "hold" if unknown else "pass"), reasons


def _outcome(
    context: StageContext, reference: Reference | None, sides: Sides, outputs: DriftOutputs
) -> Outcome:
    """Return the outcome with its report and its audit row."""
    held, reason = outputs.verdict == "hold", "; ".join(outputs.reasons)
    reason = f"hold: {reason}" if held else reason
    content = _content_digest(reference, sides, outputs)
    if not context.rehearsal:
        written = _write_report(context, reference, sides, outputs)
        outputs = msgspec.structs.replace(
            outputs,
            report=None if written is None else context.store.where(written),
            report_uri=written,
        )
    recorded = outputs.plain()
    worst = sorted(
        ((one.psi, name) for name, one in outputs.features.items() if one.psi is not None),
        reverse=True,
    )
    entry = AuditEntry(
        "drift.judged",
        context.use_case.name,
        context.key,
        context.actor,
        {
            "verdict": outputs.verdict,
            "reasons": outputs.reasons[:AUDITED_REASONS],
            "reference": recorded["reference"],
            "worst": [[name, index] for index, name in worst[:AUDITED_FEATURES]],
            "mode": context.mode,
        },
        context.started,
    )
    log.info("drift %s %s: %s %s", context.use_case.name, context.key, outputs.verdict, reason)
    return Outcome("held" if held else "done", content, reason, recorded, entries=(entry,))


def _content_digest(reference: Reference | None, sides: Sides, outputs: DriftOutputs) -> str:
    """Return the digest of a comparison: over verdict, reference and numbers, never over words."""
    against = ["", "", ""]
    if reference is not None:
        model_digest = "" if reference.model is None else reference.model.model_digest
        against = [reference.kind, reference.key, model_digest]
    indices = [
        f"{name}:{'' if one.psi is None else round(one.psi, 9)}"
        for name, one in outputs.features.items()
    ]
    lost = [f"lost/{view}:{share:.9f}" for view, share in sides.lost.items() if share is not None]
    return combine([outputs.verdict, *against, *indices, *lost])


def _write_report(
    context: StageContext, reference: Reference | None, sides: Sides, outputs: DriftOutputs
) -> str | None:
    """Write the HTML report and return its address; a failure is logged, and the verdict stands."""
    use_case = context.use_case
    try:
        return drift_report.write_report(
            context.store,
            use_case,
            context.key,
            context.mode,
            outputs,
            reference=sides.reference,
            current=sides.current,
            types={} if reference is None else reference.feature_set.feature_types,
        )
    except Unavailable as error:
        log.warning(
            "drift %s %s: no report could be written: %s", use_case.name, context.key, error
        )
        return None


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    unreadable=unreadable,
)
