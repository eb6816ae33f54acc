"""Features that carry the model: without them a small model is much worse."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.models import metrics
from include.models.encoding import encode
from include.models.matrix import columns_of, learn_schema
from include.models.metrics import Numbers
from include.point_in_time.row_copies import one_entity
from include.training import splits
from include.training.leak_findings import Finding, ask_when_written, level_of

# One feature is left out at a time: at most 1 + TRIED trainings of two halves each, on at most
# TRY_ROWS rows.
TRY_ROWS = 10_000
TRIED = 8
TRY_LEAST = 50  # rows of each class in each half
TRY_GAIN = 0.02  # share of the splits' gain below which a column is not tried
QUESTION, REFUSAL = 0.02, 0.10
# Of fewer features that tell something an honest one may carry the model: never more than a
# question.
MANY = 8
# What a feature's own AUC must be above .5, and how many standard errors of chance.
TELLS, SPREADS = 0.03, 3.0
SMALL: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
ROUNDS = 40


@dataclass(frozen=True)
class Carriers:
    """What leaving features out came to; nothing where rows or features are too few to try.

    `gains` is the AUC that is lost without a feature, `auc` that of the small model with all.
    """

    findings: list[Finding] = field(default_factory=list)
    gains: Mapping[str, float] = field(default_factory=dict)
    auc: float | None = None


NO_CARRIERS = Carriers()


def find_carriers(
    train: pa.Table,
    use_case: UseCase,
    labels: Numbers,
    feature_auc: Mapping[str, float],
    names: Sequence[str],
) -> Carriers:
    """Find features, of those named, without which a small model is much worse.

    Every row is scored by a model of the half of the entities that it does not belong to.
    """
    if len(train) > TRY_ROWS:
        places = evenly_spread(len(train), TRY_ROWS)
        train, labels = train.take(places), labels[places.to_numpy()]
    entities = one_entity(train.column(use_case.entity.key), use_case)
    half = splits.hash_shares(entities.to_pylist(), use_case.training.seed) < 0.5
    fewest = min(
        int((labels[side] == outcome).sum()) for side in (half, ~half) for outcome in (0, 1)
    )
    if fewest < TRY_LEAST or len(names) < 2:
        return NO_CARRIERS
    schema = learn_schema(train, use_case, "leaks")
    matrix, categorical = encode(columns_of(train, schema), schema), set(schema.categorical)
    columns = [schema.names.index(name) for name in names]
    scores, weights = _score_halves(matrix, labels, half, columns, categorical)
    auc = metrics.auc(labels, scores)
    many = _count_telling(labels, [feature_auc[name] for name in names]) >= MANY
    findings, gains = [], {}
    # The heaviest first: the light ones are not tried, since each costs two trainings.
    heaviest = np.argsort(-weights, kind="stable")[:TRIED].tolist()
    tried = [place for place in heaviest if weights[place] >= TRY_GAIN]

    def score_without(place: int) -> Numbers:
        rest = [*columns[:place], *columns[place + 1 :]]
        return _score_halves(matrix, labels, half, rest, categorical)[0]

    # LightGBM leaves the interpreter's lock while it trains; each model has one thread, so that
    # its bytes do not depend on how many run.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "leaks") as pool:
        all_without = list(pool.map(score_without, tried))
    for place, without in zip(tried, all_without, strict=True):
        name = names[place]
        lost = metrics.auc_difference(labels, scores, without, entities)
        gains[name] = lost.value
        if lost.value > QUESTION and lost.low > 0:
            own = feature_auc[name]
            findings.append(_carrier_finding(use_case, name, auc, lost.value, own, many=many))
    return Carriers(findings, gains, auc)


def _count_telling(labels: Numbers, feature_auc: Sequence[float]) -> int:
    """Count the features that tell something by themselves, more than chance gives.

    Columns of noise do not count: beside them no honest feature becomes suspect.
    """
    ones = float(labels.sum())
    zeros = len(labels) - ones
    # The standard error of the AUC of noise (Hanley and McNeil 1982).
    chance = np.sqrt((ones + zeros + 1) / (12 * ones * zeros))
    return int((np.asarray(feature_auc) >= 0.5 + max(TELLS, SPREADS * float(chance))).sum())


def _carrier_finding(
    use_case: UseCase, name: str, auc: float, lost: float, own_auc: float, *, many: bool
) -> Finding:
    level = level_of(use_case, name) if lost > REFUSAL and many else "question"
    text = (
        f"{name} carries the model: with it a small model's AUC is {auc:.3f}, without it "
        f"{auc - lost:.3f} (alone it has {own_auc:.3f})"
    )
    return Finding("carries", level, (name,), text, ask_when_written(use_case, name))


def _score_halves(
    matrix: Numbers,
    labels: Numbers,
    half: NDArray[np.bool_],
    chosen: Sequence[int],
    categorical: set[int],
) -> tuple[Numbers, Numbers]:
    """Return each row's score by a small model of the other half, and the columns' weights.

    A weight is a column's share of the gain of all splits.
    """
    import lightgbm

    scores, weights = np.empty(len(labels)), np.zeros(len(chosen))
    coded = [place for place, column in enumerate(chosen) if column in categorical]
    for learnt in (half, ~half):
        data = lightgbm.Dataset(
            matrix[learnt][:, chosen], labels[learnt], categorical_feature=coded, params=SMALL
        )
        booster = lightgbm.train(SMALL, data, num_boost_round=ROUNDS)
        scores[~learnt] = booster.predict(matrix[~learnt][:, chosen], num_threads=1)
        weights += booster.feature_importance("gain")
    return scores, weights / (weights.sum() or 1.0)


def evenly_spread(rows: int, kept: int) -> pa.Array:
    """Return the places of so many of the rows, from the first to the last."""
    return pa.array(np.linspace(0, rows - 1, kept).astype(np.int64))
