"""Stage `evaluate_model`: judge the partition's candidate on rows it never saw, against fixed
limits and its opponent.

Inputs: the training stage's record, its training set, the opponent's bundle, training set and
features. Outputs: a verdict (pass, fail or hold) with its reasons, an audit row, an HTML report;
when live and passed, the model's state `challenger` and its alias. A missing number, NaN or too few
rows is a hold, never a pass. A refusal is a success of this stage.

Rows, counts and metrics are those of the training's *result*: an equal model that was trained again
keeps its first manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.errors import EvergreenError, Unavailable
from include.evaluation import gate, report
from include.evaluation.gate import Check, Judgement
from include.features import feature_sets, frames
from include.lake.digests import combine, digest
from include.models import metrics as statistics
from include.models import mlflow_registry
from include.models.matrix import columns_of, labels_of
from include.models.metrics import Interval, Numbers
from include.models.predictor import Predictor
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.pipeline.unseen import UNSEEN, unreadable_outcome
from include.records.audit import AuditEntry
from include.records.records import Model, Opponent, Route, StageResult
from include.records.schema import json_digest
from include.reports import page
from include.training import leaks, splits

NAME = "evaluate_model"
FIELDS = ("gates", "entity", "label.max_censored", "training.seed")
LIBRARIES = ("lightgbm", "numpy", "pyarrow")
NOBODY = "none"
COUNTED = (
    "evaluation",
    "decisions",
    "decisions_judged",
    "immature",
    "embargoed",
    "censored",
    "censored_judged",
    "censored_share",
    "censored_share_judged",
    "restated",
    "restated_judged",
    "restated_share",
    "restated_share_judged",
)
LEFT_OUT = 0.1  # share of the evaluation rows that the opponent may have seen
ABSENT, GAP = "absent", "gap"
JUDGED = ("counts", "split", "metrics", "feature_auc", "leaks")  # of the training's result
TOLD = (*JUDGED, "training_set")  # and shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rival:
    """The opponent's scores on the evaluation rows that it has not seen; `compared` marks them
    among all.
    """

    compared: NDArray[np.bool_]
    scores: Numbers
    difference: Interval


@dataclass(frozen=True)
class Standing:
    """Whether a candidate may be released at all, by a stable id, and the reason why not for
    people.
    """

    id: str
    reason: str = ""


CLEAR = Standing("clear")


def inputs(context: StageContext) -> list[Input]:
    """Return the training's digest and numbers, the opponent with its features, the mode, and
    whether it may be released.
    """
    (trained,) = context.need("train_model", [context.key])
    numbers = leaks.without_prose({name: trained.outputs.get(name) for name in JUDGED})
    found = [
        Input("train_model", context.key, trained.digest),
        Input("mode", context.key, context.mode),
        Input("numbers", context.key, json_digest(numbers)),
    ]
    if trained.outputs.get("version") is not None:
        model = _candidate(context, trained.outputs["version"])
        opponent = _opponent(context, model)
        against = None if opponent.version is None else _candidate(context, opponent.version)
        found.append(
            Input(
                "opponent",
                str(opponent.version),
                NOBODY if against is None else against.model_digest,
            )
        )
        found.append(Input("standing", model.model_digest, _standing(context, model).id))
        if against is not None and against.feature_set != model.feature_set:
            found += _features_of(context, against, _decisions(context, trained))
    return found


def compute(context: StageContext) -> Outcome:
    """Judge the candidate; record the verdict, its audit row and the opponent in one
    transaction.
    """
    (trained,) = context.need("train_model", [context.key])
    version = trained.outputs.get("version")
    if version is None:
        reason = str(trained.outputs.get("reason") or "training gave no candidate")
        judgement = Judgement("hold", [Check("candidate", "candidate", None, None, "hold", reason)])
        return _outcome(context, trained, judgement, None, None, None, {})
    model = _candidate(context, version)
    opponent = _opponent(context, model)
    against = None if opponent.version is None else _candidate(context, opponent.version)
    rows = _training_set(context, trained.outputs["training_set"], context.key)
    rows = rows.filter(pc.equal(rows.column("split"), splits.EVALUATION))
    labels = labels_of(rows) if len(rows) else statistics.EMPTY
    scores = _scores(context, model, rows, model.feature_set)
    judgement, rival = judge(context, trained, model, against, rows, labels, scores)
    theirs = None if rival is None else (labels[rival.compared], rival.scores)
    pictures = report.pictures(labels, scores, theirs)
    return _outcome(context, trained, judgement, model, opponent, rival, pictures)


def unreadable(context: StageContext, error: Exception) -> Outcome:
    """Return the judgement that was not reached, with the candidate and the opponent that it is
    about.
    """
    (trained,) = context.need("train_model", [context.key])
    version = trained.outputs.get("version")
    model = None if version is None else _candidate(context, version)
    opponent = None if model is None else _opponent(context, model)
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
    """Make a passed live candidate the challenger, unless a newer partition or a rollback has
    overtaken it.
    """
    use_case, version = context.use_case.name, outcome.outputs.get("version")
    if version is None:
        return {}
    done: dict[str, Any] = {}
    route = context.records.routes.get(use_case)
    model = _candidate(context, version)
    overtaken = route.watermark is not None and model.partition < route.watermark
    clear = _standing(context, model) == CLEAR and not overtaken
    if outcome.outputs["verdict"] == "pass" and model.state == "candidate" and clear:
        entry = AuditEntry(
            "model.challenger",
            use_case,
            str(version),
            context.actor,
            {"partition": context.key, "model_digest": model.model_digest},
            at=context.started,
            once=f"model.challenger/{use_case}/{version}/{route.generation}",
        )
        with context.records.transaction() as session:
            context.records.models.update(use_case, version, session=session, state="challenger")
            context.records.audit.append(entry, session=session)
        done["challenger"] = version
    waiting = mlflow_registry.waiting_challenger(context.records.models.of(use_case), route)
    if waiting == version:  # else the aliases are for deployment and heal to mirror
        changed = mlflow_registry.mirror_aliases(
            context.settings, use_case, route, challenger=waiting
        )
        done |= {"aliases": changed} if changed else {}
    return done


def judge(
    context: StageContext,
    trained: StageResult,
    model: Model,
    against: Model | None,
    rows: pa.Table,
    labels: Numbers,
    scores: Numbers,
) -> tuple[Judgement, Rival | None]:
    """Return the judgement and what the opponent says of the same rows (None: there is nothing
    to compare with).
    """
    gates = context.use_case.gates
    enough = gate.enough_rows(labels, gates.min_rows)
    baseline = trained.outputs["metrics"].get("yardstick_auc")
    seed = context.use_case.training.seed
    carriers = trained.outputs.get("leaks", {}).get("carriers", ())
    checks, metrics = gate.absolute(labels, scores, baseline, gates, seed, carriers)
    checks.append(gate.censored(_censored_share(trained), context.use_case.label.max_censored))
    rival = None
    if against is not None:
        found, rival = _against(context, model, against, rows, labels, scores)
        checks.append(found)
    if rival is not None:
        metrics |= {
            "opponent_auc": statistics.auc(labels[rival.compared], rival.scores),
            "difference": rival.difference.value,
        }
        metrics |= {
            "difference_low": rival.difference.low,
            "difference_high": rival.difference.high,
        }
    standing = _standing(context, model)
    if standing != CLEAR:
        checks.append(Check("release", "release", None, None, "hold", standing.reason))
    return Judgement(gate.conclude(checks, enough=enough), [enough, *checks], metrics), rival


def _censored_share(trained: StageResult) -> float | None:
    """Return the larger of the two shares, of the window and of the part that is judged; None
    where one is not known.
    """
    shares = [
        trained.outputs["counts"].get(name) for name in ("censored_share", "censored_share_judged")
    ]
    return None if None in shares else max(shares)


def _against(
    context: StageContext,
    model: Model,
    against: Model,
    rows: pa.Table,
    labels: Numbers,
    scores: Numbers,
) -> tuple[Check, Rival | None]:
    """Compare with the opponent on rows that it has not seen; what hinders the comparison is a
    hold.
    """
    name, margin = (
        f"AUC difference to version {against.version}, lower end",
        context.use_case.gates.margin,
    )
    if against.model_digest == model.model_digest:
        reason = f"equal to version {against.version}, which serves: nothing to release"
        return Check("opponent", name, 0.0, -margin, "hold", reason), None
    try:
        compared = ~_seen(context, against, rows)
        hindrance = _too_few_left(context, against, labels, compared) or _lacks_features(
            context, model, against, rows
        )
        if hindrance:
            return Check("opponent", name, None, -margin, "hold", hindrance), None
        asked = rows.filter(pa.array(compared))
        rival = _scores(context, against, asked, model.feature_set)
    except UNSEEN as error:  # no finding: it is tried again
        raise Unavailable(f"version {against.version} cannot be asked: {error}") from error
    except EvergreenError as error:
        return Check(
            "opponent",
            name,
            None,
            -margin,
            "hold",
            f"version {against.version} cannot be asked: {error}",
        ), None
    entities = asked.column(context.use_case.entity.key)
    difference = statistics.auc_difference(labels[compared], scores[compared], rival, entities)
    return gate.not_worse(name, difference, margin), Rival(compared, rival, difference)


def _too_few_left(
    context: StageContext, against: Model, labels: Numbers, compared: NDArray[np.bool_]
) -> str:
    """Say why the rows that the opponent has not seen are no fair sample of the evaluation part,
    or nothing.
    """
    seen, limit = int((~compared).sum()), context.use_case.gates.min_rows
    told = (
        f"version {against.version} was trained or tuned on {seen} of {len(labels)} evaluation rows"
    )
    if seen > LEFT_OUT * len(labels):
        return f"{told}, more than {LEFT_OUT:.0%}: the champion has seen these rows"
    positive = int((labels[compared] == 1.0).sum())
    negative = len(labels) - seen - positive
    if seen and min(positive, negative) < limit:
        return (
            f"{told}; without them {positive} of class 1 and {negative} of class 0 are left, "
            f"each class needs {limit}"
        )
    return ""


def _lacks_features(context: StageContext, model: Model, against: Model, rows: pa.Table) -> str:
    """Say for how many partitions an opponent of another feature set has no features: joined,
    missing would be null.
    """
    if against.feature_set == model.feature_set:
        return ""
    read = _features_of(context, against, rows)
    lacking = sorted({one.key for one in read if one.digest == ABSENT})
    if not lacking:
        return ""
    return (
        f"version {against.version} cannot be asked, its features are not there for "
        f"{len(lacking)} of {len({one.key for one in read})} partitions ({lacking[0]} to "
        f"{lacking[-1]}). Fill them with `evergreen load-history {context.use_case.name} --from "
        f"{lacking[0]} --to {lacking[-1]}`, then judge again"
    )


def _features_of(context: StageContext, against: Model, rows: pa.Table) -> list[Input]:
    """Return what the opponent's features of some decisions are made of; a partition that does not
    hold a view is ABSENT.

    Where all sources allow gaps, a partition that was never computed is a gap.
    """
    theirs = feature_sets.recorded(context.records, context.use_case.name, against.feature_set)
    keys = frames.required_partitions(context.use_case, theirs, rows)
    results = {
        row.key: row
        for row in context.records.results.of(
            context.use_case.name, stage="materialize_features", keys=keys
        )
        if row.state == "done"
    }
    gaps = all(source.gaps == "allow" for source in context.use_case.sources.values())
    found = []
    for key in keys:
        tables = feature_sets.tables_by_view(results[key]) if key in results else {}
        nothing = GAP if gaps and key not in results else ABSENT
        for view in theirs.views:
            table = tables.get(view.version)
            digest = nothing if table is None else table.digest
            found.append(Input(f"features/{view.name}@{view.version}", key, digest))
    return found


def _candidate(context: StageContext, version: int) -> Model:
    model = context.records.models.get(context.use_case.name, version)
    if model is None:
        raise EvergreenError(
            f"{context.use_case.name} version {version} is not on record; run train_model for "
            f"{context.key} again"
        )
    return model


def _opponent(context: StageContext, model: Model) -> Opponent:
    """Return whom the candidate is judged against: as recorded with its first judgement, else by
    the rule of the mode.
    """
    name, route = context.use_case.name, context.records.routes.get(context.use_case.name)
    recorded = _recorded(context, model)
    if recorded is not None and not _outdated(context, model, recorded, route):
        return recorded
    version = route.champion
    if context.mode != "live":
        others = [
            other
            for other in context.records.models.of(name)
            if other.state == "released" and other.partition < context.key
        ]
        version = max(((other.partition, other.version) for other in others), default=(None, None))[
            1
        ]
    return Opponent(
        name,
        model.model_digest,
        context.mode,
        version,
        route.generation,
        context.key,
        context.started,
    )


def _recorded(context: StageContext, model: Model) -> Opponent | None:
    """Return the opponent of this partition's first judgement; an equal model of another
    partition had its own.
    """
    name, result = context.use_case.name, context.result(NAME)
    judged = result is not None and result.state == "done" and result.mode == context.mode
    if result is not None and judged and result.outputs.get("model_digest") == model.model_digest:
        version, generation = result.outputs["opponent"], result.outputs["generation"]
        return Opponent(
            name,
            model.model_digest,
            context.mode,
            version,
            generation,
            context.key,
            result.started_at,
        )
    found = context.records.opponents.get(name, model.model_digest, mode=context.mode)
    return found if found is not None and found.partition == context.key else None


def _outdated(context: StageContext, model: Model, recorded: Opponent, route: Route) -> bool:
    """Tell whether a live candidate must be judged again: it passed, could still be released, and
    another champion serves.

    So must one whose hold a person has lifted: it was judged before the rollback.
    """
    if context.mode != "live" or model.version == route.champion:
        return False
    if recorded.generation < route.rollback_generation <= model.generation:
        return True
    result = context.result(NAME)
    passed = (
        result is not None and result.outputs.get("verdict") == "pass" and model.state != "released"
    )
    overtaken = route.watermark is not None and route.watermark > context.key
    return passed and not overtaken and recorded.version != route.champion


def _standing(context: StageContext, model: Model) -> Standing:
    """Return whether a live candidate may be released whatever its numbers."""
    route: Route = context.records.routes.get(context.use_case.name)
    if context.mode != "live":
        return CLEAR
    if model.model_digest in route.held:
        reason = (
            f"{model.model_digest} was rolled back and is on hold; only `evergreen rollback "
            "--release` lifts it"
        )
        return Standing("held", reason)
    if model.generation < route.rollback_generation:
        return Standing(
            f"before_rollback/{model.generation}/{route.rollback_generation}",
            f"trained in generation {model.generation}, before the rollback of generation "
            f"{route.rollback_generation}; a newer partition trains the next candidate",
        )
    return CLEAR


def _decisions(context: StageContext, trained: StageResult) -> pa.Table:
    """Return the moments of the evaluation rows."""
    made = trained.outputs["training_set"]
    columns = ["event_timestamp", "split"]
    rows = context.lake.read(
        made["table"], keys=[context.key], columns=columns, version=made["table_version"]
    )
    return rows.filter(pc.equal(rows.column("split"), splits.EVALUATION))


def _training_set(context: StageContext, made: Mapping[str, Any], key: str) -> pa.Table:
    """Return the rows of a training, by time and entity.

    Raises:
        EvergreenError: the lake holds other rows than were trained on.
    """
    rows = context.lake.read(made["table"], keys=[key], version=made["table_version"])
    order = ["event_timestamp", context.use_case.entity.key]
    found = digest(rows, sort_by=order) if len(rows) == made["rows"] else f"{len(rows)} rows"
    if found != made["digest"]:
        raise EvergreenError(
            f"{made['table']} {key} holds {found} in version {made['table_version']}, recorded "
            f"are {made['rows']} rows of {made['digest']}; the lake was changed or cleaned too "
            "far back, train this partition again"
        )
    return rows.sort_by([(name, "ascending") for name in order])


def _scores(context: StageContext, model: Model, rows: pa.Table, feature_set: str) -> Numbers:
    """Score evaluation rows, which hold the features of `feature_set`, by a model, which may
    read another one's.
    """
    if not len(rows):
        return statistics.EMPTY
    predictor = Predictor.load(model.bundle, model.model_digest)
    if model.feature_set != feature_set:
        names = [context.use_case.entity.key, "event_timestamp", "label"]
        other = feature_sets.recorded(context.records, context.use_case.name, model.feature_set)
        versions = frames.table_versions(context.lake, context.use_case, other)
        rows = frames.training_frame(
            context.settings,
            context.use_case,
            other,
            rows.select(names),
            versions,
            records=context.records,
        )
    return predictor.many(columns_of(rows, predictor.schema))


def _seen(context: StageContext, against: Model, rows: pa.Table) -> NDArray[np.bool_]:
    """Tell which evaluation rows, by entity and moment, the opponent was trained or tuned on."""
    keys = [context.use_case.entity.key, "event_timestamp"]
    theirs = _training_set(context, against.manifest["training_set"], against.partition)
    used = theirs.filter(
        pc.is_in(theirs.column("split"), pa.array([splits.TRAIN, splits.TUNE]))
    ).select(keys)
    numbered = rows.select(keys).append_column("__row", pa.array(np.arange(len(rows))))
    found = np.zeros(len(rows), dtype=np.bool_)
    found[numbered.join(used, keys, join_type="left semi").column("__row").to_numpy()] = True
    return found


def _outcome(
    context: StageContext,
    trained: StageResult,
    judgement: Judgement,
    model: Model | None,
    opponent: Opponent | None,
    rival: Rival | None,
    pictures: Mapping[str, Any],
) -> Outcome:
    checks = [check.to_dict() for check in judgement.checks]
    counts = trained.outputs.get("counts", {})
    compared = None if rival is None else int(rival.compared.sum())
    outputs: dict[str, Any] = {
        "verdict": judgement.verdict,
        "reasons": judgement.reasons,
        "checks": checks,
        "version": None if model is None else model.version,
        "model_digest": None if model is None else model.model_digest,
        "opponent": None if opponent is None else opponent.version,
        "generation": None if opponent is None else opponent.generation,
        "metrics": judgement.metrics,
        "counts": {name: counts.get(name) for name in COUNTED},
        "compared": compared,
        "left_out": None if rival is None else len(rival.compared) - int(rival.compared.sum()),
    }
    # as they are stored: what is no finite number is null there
    values = [(check.id, check.outcome, check.to_dict()["value"]) for check in judgement.checks]
    numbers = [
        f"{name}:{outcome}:{'' if value is None else round(value, 9)}"
        for name, outcome, value in values
    ]
    version = None if opponent is None else opponent.version
    against = NOBODY if version is None else _candidate(context, version).model_digest
    content = combine([trained.digest, judgement.verdict, against, str(compared), *numbers])
    reason = "; ".join(judgement.reasons)
    if context.rehearsal:
        return Outcome("done", content, reason, outputs)
    path = (
        context.settings.home / "reports" / context.use_case.name / context.key / "evaluation.html"
    )
    told = {name: trained.outputs[name] for name in TOLD if name in trained.outputs}
    manifest: Mapping[str, Any] = told if model is None else {**model.manifest, **told}
    page.write(
        path, report.page(context.use_case, context.key, context.mode, outputs, manifest, pictures)
    )
    outputs["report"] = str(path)
    if model is not None:
        mlflow_registry.log_verdict(
            context.settings,
            use_case=model.use_case,
            version=model.version,
            run_id=model.run_id,
            verdict=judgement.verdict,
            metrics=judgement.metrics,
        )
    audited = (
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
    details = {name: outputs[name] for name in audited}
    entry = AuditEntry(
        "model.judged",
        context.use_case.name,
        context.key,
        context.actor,
        {**details, "mode": context.mode},
        at=context.started,
    )
    log.info(
        "evaluation %s %s: %s %s", context.use_case.name, context.key, judgement.verdict, reason
    )
    chosen = opponent
    if model is None or chosen is None or _equal(context, model, chosen):
        return Outcome("done", content, reason, outputs, entries=(entry,))
    return Outcome(
        "done",
        content,
        reason,
        outputs,
        entries=(entry,),
        in_transaction=lambda session: _discard(
            context.records.opponents.record(chosen, again=True, session=session)
        ),
    )


def _equal(context: StageContext, model: Model, opponent: Opponent) -> bool:
    """Tell whether the opponent is the same model, whose own opponent stays on record."""
    return (
        opponent.version is not None
        and _candidate(context, opponent.version).model_digest == model.model_digest
    )


def _discard(_: object) -> None:
    return None


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    effects=effects,
    unreadable=unreadable,
)
