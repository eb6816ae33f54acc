"""Stage `evaluate_model`: judge the partition's candidate on rows that it never saw.

Inputs: the training stage's record, its training set, the opponent's bundle, training set and
features. Outputs: a verdict (pass, fail or hold) with its reasons, an audit row, an HTML report;
when live and passed, the model's state `challenger` and its alias. A missing number, NaN or too few
rows is a hold, never a pass. A refusal is a success of this stage.

Rows, counts and metrics are those of the training's *result*: an equal model that was trained again
keeps its first manifest.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import UNSET
from sqlalchemy.orm import Session

from include.artefacts.pages import page_address, put_page
from include.errors import ArtefactError
from include.evaluation import gate, gate_remedies, report
from include.evaluation.clearance import CLEAR, release_clearance
from include.evaluation.evaluation_rows import (
    evaluation_part,
    read_moments,
    read_training_set,
    score_rows,
)
from include.evaluation.gate import Check, Judgement
from include.evaluation.opponent_scores import OpponentScores, compare, feature_inputs
from include.evaluation.opponents import choose_opponent, find_model
from include.evaluation.report import NO_CURVES, Curves
from include.lake.digests import combine
from include.models import metrics as statistics
from include.models import mlflow_registry
from include.models.artefact import refuse_collected
from include.models.kinds import serving_libraries
from include.models.matrix import labels_of
from include.models.metrics import Numbers
from include.pipeline.evaluation_outputs import EvaluationOutputs, JudgedCounts
from include.pipeline.outputs import optional
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.pipeline.training_outputs import JUDGED, Counts, Manifest, TrainingOutputs
from include.pipeline.unseen import unreadable_outcome
from include.point_in_time.row_copies import one_entity
from include.records.audit import AuditEntry
from include.records.columns import json_digest
from include.records.records import Model, Opponent
from include.training.leak_findings import without_prose

NAME = "evaluate_model"
FIELDS = ("gates", "entity", "key_is_row_digest", "label.max_censored", "training.seed")
LIBRARIES = (*serving_libraries(), "pyarrow")
NOBODY = "none"
# Of the training's outputs: what is shown in place of the model's first manifest.
SHOWN = (*JUDGED, "training_set")
# Of our outputs: what the audit row holds.
AUDITED = (
    "verdict",
    "reasons",
    "version",
    "model_digest",
    "opponent",
    "generation",
    "checks",
    "counts",
    "left_out",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """A judgement with whom it is about; without a candidate there is no model and no opponent."""

    judgement: Judgement
    model: Model | None = None
    opponent: Opponent | None = None
    opponent_model: Model | None = None
    opponent_scores: OpponentScores | None = None
    curves: Curves = NO_CURVES

    @property
    def equals_opponent(self) -> bool:
        """Whether both are the same model, whose own opponent then stays on record."""
        return (
            self.model is not None
            and self.opponent_model is not None
            and self.model.model_digest == self.opponent_model.model_digest
        )


def inputs(context: StageContext) -> list[Input]:
    """Return digests of what the verdict rests on: training, mode, opponent, release clearance.

    Raises:
        MissingPartition: the partition is not trained.
    """
    (result,) = context.need("train_model", [context.key])
    # As recorded and not as typed: the digest is over every number there is.
    numbers = without_prose({name: result.outputs.get(name) for name in JUDGED})
    read = [
        Input("train_model", context.key, result.digest),
        Input("mode", context.key, context.mode),
        Input("numbers", context.key, json_digest(numbers)),
    ]
    trained = TrainingOutputs.of(result)
    if trained.model_version is None:
        return read
    model = find_model(context, trained.model_version)
    opponent = choose_opponent(context, model)
    opponent_model = _model_of(context, opponent)
    opponent_digest = NOBODY if opponent_model is None else opponent_model.model_digest
    read.append(Input("opponent", str(opponent.version), opponent_digest))
    read.append(Input("standing", model.model_digest, release_clearance(context, model).id))
    if (
        opponent_model is not None
        and opponent_model.feature_set != model.feature_set
        and trained.training_set is not UNSET
    ):
        moments = read_moments(context, trained.training_set)
        read += feature_inputs(context, opponent_model, moments)
    return read


def compute(context: StageContext) -> Outcome:
    """Judge the candidate; record verdict, audit row and opponent in one transaction."""
    (result,) = context.need("train_model", [context.key])
    trained = TrainingOutputs.of(result)
    judged = _judge_candidate(context, trained)
    outputs = _outputs(trained, judged)
    reason = "; ".join(judged.judgement.reasons)
    content = _content_digest(result.digest, judged, outputs)
    if context.rehearsal:
        return Outcome("done", content, reason, outputs.plain())
    uri = _write_report(context, trained, judged, outputs)
    outputs = msgspec.structs.replace(outputs, report=context.store.where(uri), report_uri=uri)
    if judged.model is not None:
        mlflow_registry.log_verdict(
            context.settings,
            use_case=judged.model.use_case,
            version=judged.model.version,
            run_id=judged.model.run_id,
            verdict=judged.judgement.verdict,
            metrics=judged.judgement.metrics,
        )
    recorded = outputs.plain()
    entry = AuditEntry(
        "model.judged",
        context.use_case.name,
        context.key,
        context.actor,
        {**{name: recorded[name] for name in AUDITED}, "mode": context.mode},
        at=context.started,
    )
    log.info("evaluation %s %s: %s %s", context.use_case.name, context.key, outputs.verdict, reason)

    def record_opponent(session: Session) -> None:
        if judged.opponent is not None and not judged.equals_opponent:
            context.records.opponents.record(judged.opponent, again=True, session=session)

    return Outcome(
        "done", content, reason, recorded, entries=(entry,), in_transaction=record_opponent
    )


def unreadable(context: StageContext, error: Exception) -> Outcome:
    """Return the judgement that was not reached, with the candidate and opponent it is about."""
    (result,) = context.need("train_model", [context.key])
    version = TrainingOutputs.of(result).model_version
    model = None if version is None else find_model(context, version)
    opponent = None if model is None else choose_opponent(context, model)
    about: dict[str, Any] = {
        "version": version,
        "model_digest": None if model is None else model.model_digest,
        "opponent": None if opponent is None else opponent.version,
        "generation": None if opponent is None else opponent.generation,
        "checks": [],
        "metrics": {},
        "counts": {},
    }
    return unreadable_outcome(context, NAME, error, about)


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Make a passed live candidate challenger, unless something newer has overtaken it."""
    outputs = EvaluationOutputs.of(outcome)
    use_case, version = context.use_case.name, optional(outputs.version)
    if version is None:
        return {}
    done: dict[str, Any] = {}
    route = context.records.routes.get(use_case)
    model = find_model(context, version)
    overtaken = route.watermark is not None and model.partition < route.watermark
    clear = release_clearance(context, model) == CLEAR and not overtaken
    if outputs.verdict == "pass" and model.state == "candidate" and clear:
        entry = AuditEntry(
            "model.challenger",
            use_case,
            str(version),
            context.actor,
            {"partition": context.key, "model_digest": model.model_digest},
            at=context.started,
            once=f"model.challenger/{use_case}/{version}/{route.generation}",
        )

        def admit(session: Session) -> None:
            context.records.models.update(use_case, version, session=session, state="challenger")
            context.records.audit.append(entry, session=session)

        context.records.write(admit)
        done["challenger"] = version
    waiting = mlflow_registry.waiting_challenger(context.records.models.of(use_case), route)
    if waiting == version:  # else the aliases are for deployment and heal to mirror
        changed = mlflow_registry.mirror_aliases(
            context.settings, use_case, route, challenger=waiting
        )
        done |= {"aliases": changed} if changed else {}
    return done


def _judge_candidate(context: StageContext, trained: TrainingOutputs) -> Judged:
    """Return the judgement of the partition's candidate; without one it is a hold."""
    if trained.model_version is None:
        reason = optional(trained.reason) or "training gave no candidate"
        check = Check("candidate", "candidate", None, None, "hold", reason)
        return Judged(Judgement("hold", [check]))
    model = find_model(context, trained.model_version)
    opponent = choose_opponent(context, model)
    opponent_model = _model_of(context, opponent)
    # No finding of the comparison: what is on record stays until somebody trains it again.
    for needed in (model, opponent_model):
        if needed is not None:
            refuse_collected(needed)
    if trained.training_set is UNSET:
        raise ArtefactError(f"{context.key}: no training set is on record; run train_model again")
    rows = evaluation_part(read_training_set(context, trained.training_set, context.key))
    labels = labels_of(rows) if len(rows) else statistics.EMPTY
    scores = score_rows(context, model, rows, model.feature_set)
    judgement, asked = judge(context, trained, model, opponent_model, rows, labels, scores)
    compared = None if asked is None else (labels[asked.compared], asked.scores)
    curves = report.curves(labels, scores, compared)
    return Judged(judgement, model, opponent, opponent_model, asked, curves)


def judge(
    context: StageContext,
    trained: TrainingOutputs,
    model: Model,
    opponent: Model | None,
    rows: pa.Table,
    labels: Numbers,
    scores: Numbers,
) -> tuple[Judgement, OpponentScores | None]:
    """Return the judgement, and the opponent's scores; None: there is nothing to compare with."""
    gates, seed = context.use_case.gates, context.use_case.training.seed
    enough = gate.enough_rows(labels, gates.min_rows)
    baseline = None if trained.metrics is UNSET else trained.metrics.get("yardstick_auc")
    carriers = [] if trained.leaks is UNSET else trained.leaks.carriers
    checks, metrics = gate.absolute(labels, scores, baseline, gates, seed, carriers)
    entities = one_entity(rows.column(context.use_case.entity.key), context.use_case)
    interval = statistics.auc_interval(labels, scores, entities)
    if not math.isnan(interval.low):
        metrics |= {"auc_low": interval.low, "auc_high": interval.high}
    checks.append(
        gate.censored(_censored_share(trained.counts), context.use_case.label.max_censored)
    )
    asked = None
    if opponent is not None:
        check, asked = compare(context, model, opponent, rows, labels, scores)
        checks.append(check)
    if asked is not None:
        metrics |= {
            "opponent_auc": statistics.auc(labels[asked.compared], asked.scores),
            "difference": asked.difference.value,
            "difference_low": asked.difference.low,
            "difference_high": asked.difference.high,
        }
    clearance = release_clearance(context, model)
    if clearance != CLEAR:
        checks.append(Check("release", "release", None, None, "hold", clearance.reason))
    verdict = gate.conclude(checks, enough=enough)
    told = [
        gate_remedies.with_remedy(check, context.use_case, metrics, carriers) for check in checks
    ]
    first = gate_remedies.with_remedy(enough, context.use_case, metrics, carriers)
    return Judgement(verdict, [first, *told], metrics), asked


def _censored_share(counts: Counts) -> float | None:
    """Return the larger share, of the window or of what is judged; None: one is not known."""
    if counts.censored_share is None or counts.censored_share_judged is None:
        return None
    return max(counts.censored_share, counts.censored_share_judged)


def _model_of(context: StageContext, opponent: Opponent) -> Model | None:
    return None if opponent.version is None else find_model(context, opponent.version)


def _outputs(trained: TrainingOutputs, judged: Judged) -> EvaluationOutputs:
    """Return what is recorded of a judgement, but for its report."""
    judgement, model, opponent = judged.judgement, judged.model, judged.opponent
    asked = judged.opponent_scores
    compared = None if asked is None else int(asked.compared.sum())
    return EvaluationOutputs(
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        checks=[check.recorded() for check in judgement.checks],
        version=None if model is None else model.version,
        model_digest=None if model is None else model.model_digest,
        opponent=None if opponent is None else opponent.version,
        generation=None if opponent is None else opponent.generation,
        metrics=dict(judgement.metrics),
        counts=JudgedCounts.of(trained.counts),
        compared=compared,
        left_out=None if asked is None or compared is None else len(asked.compared) - compared,
    )


def _content_digest(training_digest: str, judged: Judged, outputs: EvaluationOutputs) -> str:
    """Return the digest of a verdict: over stable ids and numbers, never over words."""
    # Numbers as they are stored: what is not finite is null there.
    numbers = [
        f"{check.id}:{check.outcome}:{'' if value is None else round(value, 9)}"
        for check in judged.judgement.checks
        for value in [check.recorded().value]
    ]
    opponent = judged.opponent_model
    against = NOBODY if opponent is None else opponent.model_digest
    return combine([training_digest, outputs.verdict, against, str(outputs.compared), *numbers])


def _write_report(
    context: StageContext, trained: TrainingOutputs, judged: Judged, outputs: EvaluationOutputs
) -> str:
    """Write the HTML report and return its address."""
    use_case = context.use_case
    manifest = Manifest() if judged.model is None else Manifest.of_model(judged.model)
    shown = {name: getattr(trained, name) for name in SHOWN}
    manifest = msgspec.structs.replace(
        manifest, **{name: value for name, value in shown.items() if value is not UNSET}
    )
    content = report.content(use_case, context.key, context.mode, outputs, manifest, judged.curves)
    uri = page_address(use_case.name, context.key, "evaluation")
    put_page(context.store, uri, report.TEMPLATE, content)
    return uri


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    unreadable=unreadable,
)
