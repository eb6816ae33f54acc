"""The opponent's scores on the candidate's evaluation rows, as far as it has not seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.errors import EvergreenError, Unavailable
from include.evaluation import gate
from include.evaluation.evaluation_rows import read_training_set, score_rows
from include.evaluation.gate import Check
from include.features import feature_sets, frames
from include.models import metrics as statistics
from include.models.metrics import Interval, Numbers
from include.pipeline.stage import GAP, Input, StageContext
from include.pipeline.training_outputs import Manifest
from include.pipeline.unseen import UNSEEN
from include.point_in_time.row_copies import one_entity
from include.records.records import Model
from include.training import splits

LEFT_OUT = 0.1  # share of the evaluation rows that the opponent may have seen
# In place of a digest, where a partition's features were not computed and are needed.
ABSENT = "absent"


@dataclass(frozen=True)
class OpponentScores:
    """The scores of the rows that `compared` marks among all, and how they compare."""

    compared: NDArray[np.bool_]
    scores: Numbers
    difference: Interval


def compare(
    context: StageContext,
    model: Model,
    opponent: Model,
    rows: pa.Table,
    labels: Numbers,
    scores: Numbers,
) -> tuple[Check, OpponentScores | None]:
    """Compare a candidate with its opponent on the rows that the opponent has not seen.

    `labels` and `scores` are of all rows, the scores by the candidate. What hinders the comparison
    is a hold, and gives no scores.

    Raises:
        Unavailable: the opponent could not be read, which is no finding: it is tried again.
    """
    margin = context.use_case.gates.margin
    name = f"AUC difference to version {opponent.version}, lower end"

    def held(reason: str, value: float | None = None) -> tuple[Check, None]:
        return Check("opponent", name, value, -margin, "hold", reason), None

    if opponent.model_digest == model.model_digest:
        return held(
            f"equal to version {opponent.version}, which serves: nothing to release", value=0.0
        )
    try:
        compared = ~_seen_rows(context, opponent, rows)
        hindrance = _describe_unfair_rest(
            context, opponent, labels, compared
        ) or _describe_missing_features(context, model, opponent, rows)
        if hindrance:
            return held(hindrance)
        asked = rows.filter(pa.array(compared))
        opponent_scores = score_rows(context, opponent, asked, model.feature_set)
    except UNSEEN as error:
        raise Unavailable(f"version {opponent.version} cannot be asked: {error}") from error
    except EvergreenError as error:
        return held(f"version {opponent.version} cannot be asked: {error}")
    entities = one_entity(asked.column(context.use_case.entity.key), context.use_case)
    difference = statistics.auc_difference(
        labels[compared], scores[compared], opponent_scores, entities
    )
    check = gate.not_worse(name, difference, margin)
    return check, OpponentScores(compared, opponent_scores, difference)


def feature_inputs(context: StageContext, opponent: Model, rows: pa.Table) -> list[Input]:
    """Return what the opponent's features of some decisions are made of, by partition and view.

    A partition that does not hold a view has ABSENT in place of its digest; where all sources
    allow gaps, one that was never computed has GAP.
    """
    use_case = context.use_case
    feature_set = feature_sets.recorded(context.records, use_case.name, opponent.feature_set)
    keys = frames.required_partitions(use_case, feature_set, rows, until=context.key)
    results = {
        result.key: result
        for result in context.records.results.of(
            use_case.name, stage="materialize_features", keys=keys
        )
        if result.state == "done"
    }
    gaps = all(source.gaps == "allow" for source in use_case.sources.values())
    read = []
    for key in keys:
        tables = feature_sets.tables_by_view(results[key]) if key in results else {}
        nothing = GAP if gaps and key not in results else ABSENT
        for view in feature_set.views:
            table = tables.get(view.version)
            digest = nothing if table is None else table.digest
            read.append(Input(f"features/{view.name}@{view.version}", key, digest))
    return read


def _seen_rows(context: StageContext, opponent: Model, rows: pa.Table) -> NDArray[np.bool_]:
    """Tell which rows, by entity and moment, the opponent was trained or tuned on.

    It has seen a row of which it has seen a copy.
    """
    recorded = Manifest.of_model(opponent).training_set
    if recorded is None:
        raise EvergreenError("its training set is not on record")
    trained = read_training_set(context, recorded, opponent.partition)
    keys = [context.use_case.entity.key, "event_timestamp"]

    def decisions(of: pa.Table) -> pa.Table:
        entities = one_entity(of.column(keys[0]), context.use_case)
        return of.select(keys).set_column(0, keys[0], entities)

    used = decisions(
        trained.filter(pc.is_in(trained.column("split"), pa.array([splits.TRAIN, splits.TUNE])))
    )
    # A join gives rows in any order, so each carries its place.
    numbered = decisions(rows).append_column("__row", pa.array(np.arange(len(rows))))
    seen = np.zeros(len(rows), dtype=np.bool_)
    seen[numbered.join(used, keys, join_type="left semi").column("__row").to_numpy()] = True
    return seen


def _describe_unfair_rest(
    context: StageContext, opponent: Model, labels: Numbers, compared: NDArray[np.bool_]
) -> str:
    """Say why the rows that the opponent has not seen are no fair sample, or nothing."""
    seen, limit = int((~compared).sum()), context.use_case.gates.min_rows
    what = (
        f"version {opponent.version} was trained or tuned on {seen} of {len(labels)} evaluation "
        "rows"
    )
    if seen > LEFT_OUT * len(labels):
        return f"{what}, more than {LEFT_OUT:.0%}: the champion has seen these rows"
    positive = int((labels[compared] == 1.0).sum())
    negative = len(labels) - seen - positive
    if seen and min(positive, negative) < limit:
        return (
            f"{what}; without them {positive} of class 1 and {negative} of class 0 are left, "
            f"each class needs {limit}"
        )
    return ""


def _describe_missing_features(
    context: StageContext, model: Model, opponent: Model, rows: pa.Table
) -> str:
    """Say for how many partitions an opponent of another feature set has no features, or nothing.

    Joined, a feature that was never computed would be null, and the opponent would lose by it.
    """
    if opponent.feature_set == model.feature_set:
        return ""
    read = feature_inputs(context, opponent, rows)
    lacking = sorted({table.key for table in read if table.digest == ABSENT})
    if not lacking:
        return ""
    return (
        f"version {opponent.version} cannot be asked, its features are not there for "
        f"{len(lacking)} of {len({table.key for table in read})} partitions ({lacking[0]} to "
        f"{lacking[-1]}). Fill them with `evergreen load-history {context.use_case.name} --from "
        f"{lacking[0]} --to {lacking[-1]}`, then judge again"
    )
