"""Stage `evaluation`: judge the partition's candidate on rows it never saw, against fixed limits and its opponent.

Inputs: the training stage's record, its training set, the opponent's bundle. Outputs: a verdict (pass, fail or hold) with
its reasons, an audit row, an HTML report; when live and passed, the model's state `challenger` and its alias. A missing
number, NaN or too few rows is a hold, never a pass. A refusal is a success of this stage.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from include import evaluation_report, featuresets, frames, gate, registry, report_page, splits, statistics
from include.audit import AuditEntry
from include.errors import EvergreenError, Unavailable
from include.fitting import columns_of, labels_of
from include.gate import Check, Judgement
from include.lake import combine
from include.predictor import Predictor
from include.records import Model, Opponent, Route
from include.statistics import Numbers
from include.unseen import UNSEEN, unreadable
from include.work import Outcome, Read, Work

NAME = "evaluation"
FIELDS = ("gates", "entity", "label.max_censored", "training.seed")
LIBRARIES = ("lightgbm", "numpy", "pyarrow")
NOBODY = "none"
COUNTED = ("evaluation", "immature", "censored", "restated")

log = logging.getLogger(__name__)


def reads(work: Work) -> list[Read]:
    """Return the training's digest, the opponent's, the mode, and whether the candidate may be released at all."""
    (trained,) = work.need("training", [work.key])
    found = [Read("training", work.key, trained.digest), Read("mode", work.key, work.mode)]
    if trained.outputs.get("version") is not None:
        model = _candidate(work, trained.outputs["version"])
        opponent = _opponent(work, model)
        digest = NOBODY if opponent.version is None else _candidate(work, opponent.version).model_digest
        found.append(Read("opponent", str(opponent.version), digest))
        found.append(Read("standing", model.model_digest, _standing(work, model)))
    return found


def compute(work: Work) -> Outcome:
    """Judge the candidate; record the verdict, its audit row and the opponent in one transaction."""
    (trained,) = work.need("training", [work.key])
    version = trained.outputs.get("version")
    if version is None:
        reason = str(trained.outputs.get("reason") or "training gave no candidate")
        judgement = Judgement("hold", [Check("candidate", None, None, "hold", reason)])
        return _outcome(work, trained.digest, judgement, None, None, {})
    model = _candidate(work, version)
    opponent = _opponent(work, model)
    against = None if opponent.version is None else _candidate(work, opponent.version)
    rows = _evaluation_rows(work, model)
    labels = labels_of(rows) if len(rows) else statistics.EMPTY
    scores = _scores(work, model, rows, model.feature_set)
    judgement, rival = judge(work, model, against, rows, labels, scores)
    pictures = evaluation_report.pictures(labels, scores, rival)
    return _outcome(work, trained.digest, judgement, model, opponent, pictures)


def unread(work: Work, error: Exception) -> Outcome:
    """Return the judgement that was not reached, with the candidate and the opponent that it is about."""
    (trained,) = work.need("training", [work.key])
    version = trained.outputs.get("version")
    model = None if version is None else _candidate(work, version)
    opponent = None if model is None else _opponent(work, model)
    about: dict[str, Any] = {
        "version": version,
        "model_digest": None if model is None else model.model_digest,
        "opponent": None if opponent is None else opponent.version,
        "generation": None if opponent is None else opponent.generation,
        "checks": [],
        "metrics": {},
        "counts": {},
    }
    return unreadable(work, NAME, error, about)


def effects(work: Work, outcome: Outcome) -> dict[str, Any]:
    """Make a passed live candidate the challenger, unless a newer partition or a rollback has overtaken it."""
    use_case, version = work.use_case.name, outcome.outputs.get("version")
    if version is None:
        return {}
    done: dict[str, Any] = {}
    route = work.records.route(use_case)
    model = _candidate(work, version)
    overtaken = route.watermark is not None and model.partition < route.watermark
    clear = _standing(work, model) == "clear" and not overtaken
    if outcome.outputs["verdict"] == "pass" and model.state == "candidate" and clear:
        entry = AuditEntry(
            "model.challenger",
            use_case,
            str(version),
            work.actor,
            {"partition": work.key, "model_digest": model.model_digest},
            at=work.started,
            once=f"model.challenger/{use_case}/{version}/{route.generation}",
        )
        with work.records.transaction() as session:
            work.records.update_model(use_case, version, session=session, state="challenger")
            work.records.append(entry, session=session)
        done["challenger"] = version
    waiting = registry.waiting_challenger(work.records.models(use_case), route)
    if waiting == version:  # else the aliases are for deployment and heal to mirror
        changed = registry.mirror_aliases(work.settings, use_case, route, challenger=waiting)
        done |= {"aliases": changed} if changed else {}
    return done


def judge(
    work: Work, model: Model, against: Model | None, rows: pa.Table, labels: Numbers, scores: Numbers
) -> tuple[Judgement, Numbers | None]:
    """Return the judgement and the opponent's scores on the same rows (None: there are none to compare with)."""
    gates = work.use_case.gates
    enough = gate.enough_rows(labels, gates.min_rows)
    yardstick = model.manifest["metrics"].get("yardstick_auc")
    seed = work.use_case.training.seed
    carriers = model.manifest.get("leaks", {}).get("carriers", ())
    checks, metrics = gate.absolute(labels, scores, yardstick, gates, seed, carriers)
    checks.append(gate.censored(model.manifest["counts"].get("censored_share"), work.use_case.label.max_censored))
    rival = None
    if against is not None:
        found, rival = _against(work, model, against, rows, labels, scores)
        checks.append(found)
    if rival is not None:
        entities = rows.column(work.use_case.entity.key)
        difference = statistics.auc_difference(labels, scores, rival, entities)
        metrics |= {"opponent_auc": statistics.auc(labels, rival), "difference": difference.value}
        metrics |= {"difference_low": difference.low, "difference_high": difference.high}
    standing = _standing(work, model)
    if standing != "clear":
        checks.append(Check("release", None, None, "hold", standing))
    return Judgement(gate.conclude(checks, enough=enough), [enough, *checks], metrics), rival


def _against(
    work: Work, model: Model, against: Model, rows: pa.Table, labels: Numbers, scores: Numbers
) -> tuple[Check, Numbers | None]:
    """Compare with the opponent on rows that it has not seen; what hinders the comparison is a hold."""
    name, margin = f"AUC difference to version {against.version}, lower end", work.use_case.gates.margin
    if against.model_digest == model.model_digest:
        reason = f"equal to version {against.version}, which serves: nothing to release"
        return Check(name, 0.0, -margin, "hold", reason), None
    try:
        seen = _overlap(work, against, rows)
        if seen:
            reason = f"champion has seen these rows: version {against.version} was trained or tuned on {seen} of {len(rows)}"
            return Check(name, None, -margin, "hold", reason), None
        rival = _scores(work, against, rows, model.feature_set)
    except UNSEEN as error:  # no finding: it is tried again
        raise Unavailable(f"version {against.version} cannot be asked: {error}") from error
    except EvergreenError as error:
        return Check(name, None, -margin, "hold", f"version {against.version} cannot be asked: {error}"), None
    entities = rows.column(work.use_case.entity.key)
    return gate.not_worse(name, statistics.auc_difference(labels, scores, rival, entities), margin), rival


def _candidate(work: Work, version: int) -> Model:
    model = work.records.model(work.use_case.name, version)
    if model is None:
        raise EvergreenError(f"{work.use_case.name} version {version} is not on record; run training for {work.key} again")
    return model


def _opponent(work: Work, model: Model) -> Opponent:
    """Return whom the candidate is judged against: as recorded with its first judgement, else by the rule of the mode."""
    name, route = work.use_case.name, work.records.route(work.use_case.name)
    recorded = _recorded(work, model)
    if recorded is not None and not _outdated(work, model, recorded, route):
        return recorded
    version = route.champion
    if work.mode != "live":
        others = [other for other in work.records.models(name) if other.state == "released" and other.partition < work.key]
        version = max(((other.partition, other.version) for other in others), default=(None, None))[1]
    return Opponent(name, model.model_digest, work.mode, version, route.generation, work.key, work.started)


def _recorded(work: Work, model: Model) -> Opponent | None:
    """Return the opponent of this partition's first judgement; an equal model of another partition had its own."""
    name, result = work.use_case.name, work.result(NAME)
    judged = result is not None and result.state == "done" and result.mode == work.mode
    if result is not None and judged and result.outputs.get("model_digest") == model.model_digest:
        version, generation = result.outputs["opponent"], result.outputs["generation"]
        return Opponent(name, model.model_digest, work.mode, version, generation, work.key, result.started_at)
    found = work.records.opponent(name, model.model_digest, mode=work.mode)
    return found if found is not None and found.partition == work.key else None


def _outdated(work: Work, model: Model, recorded: Opponent, route: Route) -> bool:
    """Tell whether a live candidate must be judged again: it passed, could still be released, and another champion serves.

    So must one whose hold a person has lifted: it was judged before the rollback.
    """
    if work.mode != "live" or model.version == route.champion:
        return False
    if recorded.generation < route.rollback_generation <= model.generation:
        return True
    result = work.result(NAME)
    passed = result is not None and result.outputs.get("verdict") == "pass" and model.state != "released"
    overtaken = route.watermark is not None and route.watermark > work.key
    return passed and not overtaken and recorded.version != route.champion


def _standing(work: Work, model: Model) -> str:
    """Say why a live candidate may not be released whatever its numbers, or `clear`."""
    route: Route = work.records.route(work.use_case.name)
    if work.mode != "live":
        return "clear"
    if model.model_digest in route.held:
        return f"{model.model_digest} was rolled back and is on hold; only `evergreen rollback --release` lifts it"
    if model.generation < route.rollback_generation:
        return (
            f"trained in generation {model.generation}, before the rollback of generation {route.rollback_generation};"
            " a newer partition trains the next candidate"
        )
    return "clear"


def _evaluation_rows(work: Work, model: Model) -> pa.Table:
    rows = _training_set(work, model)
    return rows.filter(pc.equal(rows.column("split"), splits.EVALUATION))


def _training_set(work: Work, model: Model) -> pa.Table:
    made = model.manifest["training_set"]
    rows = work.lake.read(made["table"], keys=[model.partition], version=made["table_version"])
    if len(rows) != made["rows"]:
        raise EvergreenError(
            f"{made['table']} {model.partition} has {len(rows)} rows in version {made['table_version']}, recorded are"
            f" {made['rows']}; the lake was cleaned too far back, train this partition again"
        )
    return rows.sort_by([("event_timestamp", "ascending"), (work.use_case.entity.key, "ascending")])


def _scores(work: Work, model: Model, rows: pa.Table, feature_set: str) -> Numbers:
    """Score evaluation rows, which hold the features of `feature_set`, by a model, which may read another one's."""
    if not len(rows):
        return statistics.EMPTY
    predictor = Predictor.load(model.bundle, model.model_digest)
    if model.feature_set != feature_set:
        names = [work.use_case.entity.key, "event_timestamp", "label"]
        spine = frames.Spine(rows=rows.select(names), immature=0, censored=0, restated=0)
        other = featuresets.recorded(work.records, work.use_case.name, model.feature_set)
        pins = frames.pins(work.lake, work.use_case, other)
        rows = frames.training_frame(work.settings, work.use_case, other, spine, pins, records=work.records)
    return predictor.many(columns_of(rows, predictor.schema))


def _overlap(work: Work, against: Model, rows: pa.Table) -> int:
    """Return how many evaluation rows the opponent was trained or tuned on."""
    keys = [work.use_case.entity.key, "event_timestamp"]
    theirs = _training_set(work, against)
    used = theirs.filter(pc.is_in(theirs.column("split"), pa.array([splits.TRAIN, splits.TUNE]))).select(keys)
    return int(rows.select(keys).join(used, keys, join_type="left semi").num_rows)


def _outcome(
    work: Work, trained: str, judgement: Judgement, model: Model | None, opponent: Opponent | None, pictures: Mapping[str, Any]
) -> Outcome:
    checks = [check.to_dict() for check in judgement.checks]
    outputs: dict[str, Any] = {
        "verdict": judgement.verdict,
        "reasons": judgement.reasons,
        "checks": checks,
        "version": None if model is None else model.version,
        "model_digest": None if model is None else model.model_digest,
        "opponent": None if opponent is None else opponent.version,
        "generation": None if opponent is None else opponent.generation,
        "metrics": judgement.metrics,
        "counts": {} if model is None else {name: model.manifest["counts"].get(name) for name in COUNTED},
    }
    numbers = [
        f"{check.name}:{check.outcome}:{'' if check.value is None else round(check.value, 9)}" for check in judgement.checks
    ]
    digest = combine([trained, judgement.verdict, *numbers])
    reason = "; ".join(judgement.reasons)
    if work.rehearsal:
        return Outcome("done", digest, reason, outputs)
    path = work.settings.home / "reports" / work.use_case.name / work.key / "evaluation.html"
    manifest: Mapping[str, Any] = {} if model is None else model.manifest
    report_page.write(path, evaluation_report.page(work.use_case, work.key, work.mode, outputs, manifest, pictures))
    outputs["report"] = str(path)
    if model is not None:
        registry.log_verdict(
            work.settings,
            use_case=model.use_case,
            version=model.version,
            run_id=model.run_id,
            verdict=judgement.verdict,
            metrics=judgement.metrics,
        )
    audited = ("verdict", "reasons", "version", "model_digest", "opponent", "generation", "checks", "counts")
    details = {name: outputs[name] for name in audited}
    entry = AuditEntry("model.judged", work.use_case.name, work.key, work.actor, {**details, "mode": work.mode}, at=work.started)
    log.info("evaluation %s %s: %s %s", work.use_case.name, work.key, judgement.verdict, reason)
    chosen = opponent
    if model is None or chosen is None or _equal(work, model, chosen):
        return Outcome("done", digest, reason, outputs, entries=(entry,))
    return Outcome(
        "done", digest, reason, outputs, entries=(entry,),
        also=lambda session: _discard(work.records.record_opponent(chosen, again=True, session=session)),
    )  # fmt: skip


def _equal(work: Work, model: Model, opponent: Opponent) -> bool:
    """Tell whether the opponent is the same model, whose own opponent stays on record."""
    return opponent.version is not None and _candidate(work, opponent.version).model_digest == model.model_digest


def _discard(_: object) -> None:
    return None
