"""Fit one LightGBM model on one frame: schema, booster, calibration, golden rows, metrics.

Pure: no lake, no registry, no clock.

A frame has the entity key, `event_timestamp`, `label` (0 or 1) and the features; rows come sorted
by the caller. Equal frames give equal bundles, byte for byte.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.models import golden, lightgbm_parameters
from include.models import metrics as statistics
from include.models.baseline import baseline
from include.models.calibration import calibrated
from include.models.encoding import encode
from include.models.kinds import Fitted
from include.models.matrix import (
    Numbers,
    Parts,
    choose_golden_rows,
    columns_of,
    labels_of,
    learn_schema,
)
from include.models.platt import fit_platt

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "metric": "binary_logloss",
}

# Of rounds and learning rate, before stopping early counts. Where the outcome's rate or the
# features move from train to tune, no round seems to help there, and one lone tree would be what is
# kept.
LEAST_LEARNT = 2.5
TRAIN, TUNE, EVALUATION = range(3)  # the numbers of `Parts`


@lightgbm_parameters.refusing
def fit(frame: pa.Table, parts: Parts, use_case: UseCase, feature_set: str) -> Fitted:
    """Find the rounds and the calibration by a first model, then fit another on train and tune.

    The first model is fitted on part 0 and stops early on part 1; slope and offset are fitted on
    its scores of part 1, the newest rows that a model was not fitted on. The model that is kept has
    as many rounds, fitted on both parts: the newest outcomes count most in what follows them.
    Categories, golden rows and the baseline are of both parts too; of part 2 only metrics are
    taken. Parts 0 and 1 must each hold both classes.

    Raises:
        ConfigError: LightGBM refuses to train with `training.params`.
    """
    import lightgbm

    labels = labels_of(frame)
    train, tune, evaluation = (parts == number for number in (TRAIN, TUNE, EVALUATION))
    used = train | tune
    seen = frame.filter(pa.array(used))
    schema = learn_schema(seen, use_case, feature_set)
    matrix = encode(columns_of(frame, schema), schema)
    params = parameters(use_case)
    # LightGBM takes the parameter before the argument: left there, the kept model would have that
    # many
    limit = int(params.pop("num_iterations", use_case.training.rounds))
    categorical = schema.categorical or "auto"

    def dataset(rows: NDArray[np.bool_], reference: Any = None) -> Any:
        return lightgbm.Dataset(
            matrix[rows],
            labels[rows],
            reference=reference,
            categorical_feature=categorical,
            params=params,
            free_raw_data=True,
        )

    data = dataset(train)
    first = lightgbm.train(
        params,
        data,
        num_boost_round=limit,
        valid_sets=[dataset(tune, data)],
        callbacks=[lightgbm.early_stopping(use_case.training.early_stopping, verbose=False)],
    )
    rounds = max(
        int(first.best_iteration or first.current_iteration()), _least_rounds(limit, params)
    )
    # It stopped sooner: its scores have to be those of so many rounds.
    if first.num_trees() < rounds:
        first = lightgbm.train(params, data, num_boost_round=rounds)
    held_out = np.asarray(
        first.predict(matrix[tune], raw_score=True, num_iteration=rounds, num_threads=1),
        dtype=np.float64,
    )
    slope, offset = fit_platt(held_out, labels[tune])
    del first, data  # before the second model: two of them with their data are the peak of memory
    text = lightgbm.train(params, dataset(used), num_boost_round=rounds).model_to_string()
    # Read back from its text: what is measured and kept as golden is what will be loaded.
    booster = lightgbm.Booster(model_str=text)

    def raw(rows: Numbers) -> Numbers:
        return np.asarray(booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)

    schema = replace(schema, slope=slope, offset=offset)
    rows = choose_golden_rows(seen, schema)
    scores = calibrated(raw(encode(rows, schema)), slope, offset)
    golden_rows = golden.rows_to_json(rows, scores.tolist())
    schema = replace(schema, golden=golden.digest(golden_rows))
    files = {
        "model.txt": text.encode(),
        "schema.json": schema.to_json().encode(),
        "golden.json": golden_rows,
    }
    metrics = {
        "first_model_tune_auc": statistics.auc(labels[tune], held_out),
        "train_and_tune_auc": statistics.auc(labels[used], raw(matrix[used])),
        "evaluation_auc": statistics.auc(
            labels[evaluation], raw(matrix[evaluation]) if evaluation.any() else statistics.EMPTY
        ),
        "yardstick_auc": statistics.auc(
            labels[evaluation], baseline(matrix, labels, used, evaluation, schema)
        ),
    }
    gains = booster.feature_importance("gain")
    total = float(gains.sum()) or 1.0  # no tree has a split where nothing tells
    weights = dict(zip(schema.names, (gains / total).tolist(), strict=True))
    return Fitted(files, rounds, params, metrics, weights)


def parameters(use_case: UseCase) -> dict[str, Any]:
    """Return LightGBM's parameters under its own names.

    What determinism and a binary outcome need cannot be set otherwise.

    Raises:
        ConfigError: a parameter is unknown, or not for a use case to set.
    """
    forced = {
        "objective": "binary",
        "seed": use_case.training.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    return {**DEFAULTS, **lightgbm_parameters.canonical(use_case.training.params), **forced}


def _least_rounds(limit: int, params: dict[str, Any]) -> int:
    """Return the fewest rounds of a model, within the most that it may have."""
    rate = float(params["learning_rate"])
    return min(limit, math.ceil(LEAST_LEARNT / rate) if rate > 0 else 1)
