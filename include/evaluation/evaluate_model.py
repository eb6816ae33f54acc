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
from include.pipeline.stage import Outcome, Read, Stage, Work
from include.pipeline.unseen import UNSEEN, unreadable
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


def reads(work: Work) -> list[Read]:
    """Return the training's digest and numbers, the opponent with its features, the mode, and
    whether it may be released.
    """
    (trained,) = work.need("train_model", [work.key])
    numbers = leaks.without_prose({name: trained.outputs.get(name) for name in JUDGED})
    found = [
        Read("train_model", work.key, trained.digest),
        Read("mode", work.key, work.mode),
        Read("numbers", work.key, json_digest(numbers)),
    ]
    if trained.outputs.get("version") is not None:
        model = _candidate(work, trained.outputs["version"])
        opponent = _opponent(work, model)
        against = None if opponent.version is None else _candidate(work, opponent.version)
        found.append(
            Read(
                "opponent",
                str(opponent.version),
                NOBODY if against is None else against.model_digest,
            )
        )
        found.append(Read("standing", model.model_digest, _standing(work, model).id))
        if against is not None and against.feature_set != model.feature_set:
            found += _features_of(work, against, _decisions(work, trained))
    return found


def compute(work: Work) -> Outcome:
    """Judge the candidate; record the verdict, its audit row and the opponent in one
    transaction.
    """
    (trained,) = work.need("train_model", [work.key])
    version = trained.outputs.get("version")
    if version is None:
        reason = str(trained.outputs.get("reason") or "training gave no candidate")
        judgement = Judgement("hold", [Check("candidate", "candidate", None, None, "hold", reason)])
        return _outcome(work, trained, judgement, None, None, None, {})
    model = _candidate(work, version)
    opponent = _opponent(work, model)
    against = None if opponent.version is None else _candidate(work, opponent.version)
    rows = _training_set(work, trained.outputs["training_set"], work.key)
    rows = rows.filter(pc.equal(rows.column("split"), splits.EVALUATION))
    labels = labels_of(rows) if len(rows) else statistics.EMPTY
    scores = _scores(work, model, rows, model.feature_set)
    judgement, rival = judge(work, trained, model, against, rows, labels, scores)
    theirs = None if rival is None else (labels[rival.compared], rival.scores)
    pictures = report.pictures(labels, scores, theirs)
    return _outcome(work, trained, judgement, model, opponent, rival, pictures)


def unread(work: Work, error: Exception) -> Outcome:
    """Return the judgement that was not reached, with the candidate and the opponent that it is
    about.
    """
    (trained,) = work.need("train_model", [work.key])
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
    """Make a passed live candidate the challenger, unless a newer partition or a rollback has
    overtaken it.
    """
    use_case, version = work.use_case.name, outcome.outputs.get("version")
    if version is None:
        return {}
    done: dict[str, Any] = {}
    route = work.records.routes.get(use_case)
    model = _candidate(work, version)
    overtaken = route.watermark is not None and model.partition < route.watermark
    clear = _standing(work, model) == CLEAR and not overtaken
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
            work.records.models.update(use_case, version, session=session, state="challenger")
            work.records.audit.append(entry, session=session)
        done["challenger"] = version
    waiting = mlflow_registry.waiting_challenger(work.records.models.of(use_case), route)
    if waiting == version:  # else the aliases are for deployment and heal to mirror
        changed = mlflow_registry.mirror_aliases(work.settings, use_case, route, challenger=waiting)
        done |= {"aliases": changed} if changed else {}
    return done


def judge(
    work: Work,
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
    gates = work.use_case.gates
    enough = gate.enough_rows(labels, gates.min_rows)
    yardstick = trained.outputs["metrics"].get("yardstick_auc")
    seed = work.use_case.training.seed
    carriers = trained.outputs.get("leaks", {}).get("carriers", ())
    checks, metrics = gate.absolute(labels, scores, yardstick, gates, seed, carriers)
    checks.append(gate.censored(_censored_share(trained), work.use_case.label.max_censored))
    rival = None
    if against is not None:
        found, rival = _against(work, model, against, rows, labels, scores)
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
    standing = _standing(work, model)
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
    work: Work, model: Model, against: Model, rows: pa.Table, labels: Numbers, scores: Numbers
) -> tuple[Check, Rival | None]:
    """Compare with the opponent on rows that it has not seen; what hinders the comparison is a
    hold.
    """
    name, margin = (
        f"AUC difference to version {against.version}, lower end",
        work.use_case.gates.margin,
    )
    if against.model_digest == model.model_digest:
        reason = f"equal to version {against.version}, which serves: nothing to release"
        return Check("opponent", name, 0.0, -margin, "hold", reason), None
    try:
        compared = ~_seen(work, against, rows)
        hindrance = _too_few_left(work, against, labels, compared) or _lacks_features(
            work, model, against, rows
        )
        if hindrance:
            return Check("opponent", name, None, -margin, "hold", hindrance), None
        asked = rows.filter(pa.array(compared))
        rival = _scores(work, against, asked, model.feature_set)
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
    entities = asked.column(work.use_case.entity.key)
    difference = statistics.auc_difference(labels[compared], scores[compared], rival, entities)
    return gate.not_worse(name, difference, margin), Rival(compared, rival, difference)


def _too_few_left(work: Work, against: Model, labels: Numbers, compared: NDArray[np.bool_]) -> str:
    """Say why the rows that the opponent has not seen are no fair sample of the evaluation part,
    or nothing.
    """
    seen, limit = int((~compared).sum()), work.use_case.gates.min_rows
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


def _lacks_features(work: Work, model: Model, against: Model, rows: pa.Table) -> str:
    """Say for how many partitions an opponent of another feature set has no features: joined,
    missing would be null.
    """
    if against.feature_set == model.feature_set:
        return ""
    read = _features_of(work, against, rows)
    lacking = sorted({one.key for one in read if one.digest == ABSENT})
    if not lacking:
        return ""
    return (
        f"version {against.version} cannot be asked, its features are not there for "
        f"{len(lacking)} of {len({one.key for one in read})} partitions ({lacking[0]} to "
        f"{lacking[-1]}). Fill them with `evergreen load-history {work.use_case.name} --from "
        f"{lacking[0]} --to {lacking[-1]}`, then judge again"
    )


def _features_of(work: Work, against: Model, rows: pa.Table) -> list[Read]:
    """Return what the opponent's features of some decisions are made of; a partition that does not
    hold a view is ABSENT.

    Where all sources allow gaps, a partition that was never computed is a gap.
    """
    theirs = feature_sets.recorded(work.records, work.use_case.name, against.feature_set)
    keys = frames.required_partitions(work.use_case, theirs, rows)
    results = {
        row.key: row
        for row in work.records.results.of(
            work.use_case.name, stage="materialize_features", keys=keys
        )
        if row.state == "done"
    }
    gaps = all(source.gaps == "allow" for source in work.use_case.sources.values())
    found = []
    for key in keys:
        made = feature_sets.made(results[key]) if key in results else {}
        nothing = GAP if gaps and key not in results else ABSENT
        for view in theirs.views:
            found.append(
                Read(
                    f"features/{view.name}@{view.version}",
                    key,
                    made.get(view.version, {}).get("digest", nothing),
                )
            )
    return found


def _candidate(work: Work, version: int) -> Model:
    model = work.records.models.get(work.use_case.name, version)
    if model is None:
        raise EvergreenError(
            f"{work.use_case.name} version {version} is not on record; run train_model for "
            f"{work.key} again"
        )
    return model


def _opponent(work: Work, model: Model) -> Opponent:
    """Return whom the candidate is judged against: as recorded with its first judgement, else by
    the rule of the mode.
    """
    name, route = work.use_case.name, work.records.routes.get(work.use_case.name)
    recorded = _recorded(work, model)
    if recorded is not None and not _outdated(work, model, recorded, route):
        return recorded
    version = route.champion
    if work.mode != "live":
        others = [
            other
            for other in work.records.models.of(name)
            if other.state == "released" and other.partition < work.key
        ]
        version = max(((other.partition, other.version) for other in others), default=(None, None))[
            1
        ]
    return Opponent(
        name, model.model_digest, work.mode, version, route.generation, work.key, work.started
    )


def _recorded(work: Work, model: Model) -> Opponent | None:
    """Return the opponent of this partition's first judgement; an equal model of another
    partition had its own.
    """
    name, result = work.use_case.name, work.result(NAME)
    judged = result is not None and result.state == "done" and result.mode == work.mode
    if result is not None and judged and result.outputs.get("model_digest") == model.model_digest:
        version, generation = result.outputs["opponent"], result.outputs["generation"]
        return Opponent(
            name, model.model_digest, work.mode, version, generation, work.key, result.started_at
        )
    found = work.records.opponents.get(name, model.model_digest, mode=work.mode)
    return found if found is not None and found.partition == work.key else None


def _outdated(work: Work, model: Model, recorded: Opponent, route: Route) -> bool:
    """Tell whether a live candidate must be judged again: it passed, could still be released, and
    another champion serves.

    So must one whose hold a person has lifted: it was judged before the rollback.
    """
    if work.mode != "live" or model.version == route.champion:
        return False
    if recorded.generation < route.rollback_generation <= model.generation:
        return True
    result = work.result(NAME)
    passed = (
        result is not None and result.outputs.get("verdict") == "pass" and model.state != "released"
    )
    overtaken = route.watermark is not None and route.watermark > work.key
    return passed and not overtaken and recorded.version != route.champion


def _standing(work: Work, model: Model) -> Standing:
    """Return whether a live candidate may be released whatever its numbers."""
    route: Route = work.records.routes.get(work.use_case.name)
    if work.mode != "live":
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


def _decisions(work: Work, trained: StageResult) -> pa.Table:
    """Return the moments of the evaluation rows."""
    made = trained.outputs["training_set"]
    columns = ["event_timestamp", "split"]
    rows = work.lake.read(
        made["table"], keys=[work.key], columns=columns, version=made["table_version"]
    )
    return rows.filter(pc.equal(rows.column("split"), splits.EVALUATION))


def _training_set(work: Work, made: Mapping[str, Any], key: str) -> pa.Table:
    """Return the rows of a training, by time and entity.

    Raises:
        EvergreenError: the lake holds other rows than were trained on.
    """
    rows = work.lake.read(made["table"], keys=[key], version=made["table_version"])
    order = ["event_timestamp", work.use_case.entity.key]
    found = digest(rows, sort_by=order) if len(rows) == made["rows"] else f"{len(rows)} rows"
    if found != made["digest"]:
        raise EvergreenError(
            f"{made['table']} {key} holds {found} in version {made['table_version']}, recorded "
            f"are {made['rows']} rows of {made['digest']}; the lake was changed or cleaned too "
            "far back, train this partition again"
        )
    return rows.sort_by([(name, "ascending") for name in order])


def _scores(work: Work, model: Model, rows: pa.Table, feature_set: str) -> Numbers:
    """Score evaluation rows, which hold the features of `feature_set`, by a model, which may
    read another one's.
    """
    if not len(rows):
        return statistics.EMPTY
    predictor = Predictor.load(model.bundle, model.model_digest)
    if model.feature_set != feature_set:
        names = [work.use_case.entity.key, "event_timestamp", "label"]
        other = feature_sets.recorded(work.records, work.use_case.name, model.feature_set)
        pins = frames.pins(work.lake, work.use_case, other)
        rows = frames.training_frame(
            work.settings, work.use_case, other, rows.select(names), pins, records=work.records
        )
    return predictor.many(columns_of(rows, predictor.schema))


def _seen(work: Work, against: Model, rows: pa.Table) -> NDArray[np.bool_]:
    """Tell which evaluation rows, by entity and moment, the opponent was trained or tuned on."""
    keys = [work.use_case.entity.key, "event_timestamp"]
    theirs = _training_set(work, against.manifest["training_set"], against.partition)
    used = theirs.filter(
        pc.is_in(theirs.column("split"), pa.array([splits.TRAIN, splits.TUNE]))
    ).select(keys)
    numbered = rows.select(keys).append_column("__row", pa.array(np.arange(len(rows))))
    found = np.zeros(len(rows), dtype=np.bool_)
    found[numbered.join(used, keys, join_type="left semi").column("__row").to_numpy()] = True
    return found


def _outcome(
    work: Work,
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
    against = NOBODY if version is None else _candidate(work, version).model_digest
    content = combine([trained.digest, judgement.verdict, against, str(compared), *numbers])
    reason = "; ".join(judgement.reasons)
    if work.rehearsal:
        return Outcome("done", content, reason, outputs)
    path = work.settings.home / "reports" / work.use_case.name / work.key / "evaluation.html"
    told = {name: trained.outputs[name] for name in TOLD if name in trained.outputs}
    manifest: Mapping[str, Any] = told if model is None else {**model.manifest, **told}
    page.write(path, report.page(work.use_case, work.key, work.mode, outputs, manifest, pictures))
    outputs["report"] = str(path)
    if model is not None:
        mlflow_registry.log_verdict(
            work.settings,
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
        work.use_case.name,
        work.key,
        work.actor,
        {**details, "mode": work.mode},
        at=work.started,
    )
    log.info("evaluation %s %s: %s %s", work.use_case.name, work.key, judgement.verdict, reason)
    chosen = opponent
    if model is None or chosen is None or _equal(work, model, chosen):
        return Outcome("done", content, reason, outputs, entries=(entry,))
    return Outcome(
        "done",
        content,
        reason,
        outputs,
        entries=(entry,),
        also=lambda session: _discard(
            work.records.opponents.record(chosen, again=True, session=session)
        ),
    )


def _equal(work: Work, model: Model, opponent: Opponent) -> bool:
    """Tell whether the opponent is the same model, whose own opponent stays on record."""
    return (
        opponent.version is not None
        and _candidate(work, opponent.version).model_digest == model.model_digest
    )


def _discard(_: object) -> None:
    return None


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    reads=reads,
    compute=compute,
    effects=effects,
    unread=unread,
)
