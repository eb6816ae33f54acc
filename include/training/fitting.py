"""Fit one model on one frame: schema, LightGBM, calibration, baseline, golden rows.

Pure: no lake, no registry, no clock.

A frame has the entity key, `event_timestamp`, `label` (0 or 1) and the features; rows come sorted
by the caller. Equal frames give equal bundles, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.models import metrics as statistics
from include.models import parameters as model_params
from include.models.encoding import Feature, Schema, encode
from include.models.matrix import Numbers, columns_of, labels_of
from include.models.predictor import Predictor, calibrated
from include.training import splits

MAX_CATEGORIES = 200
GOLDEN_ROWS = 12
UNSEEN = "\u2205 never seen in training"
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

Parts = NDArray[np.int8]


@dataclass(frozen=True)
class Fitted:
    """A bundle in memory, with what is to be known of its making."""

    files: dict[str, bytes]
    rounds: int
    params: dict[str, Any]
    metrics: dict[str, float]

    @property
    def predictor(self) -> Predictor:
        """The model, loaded as serving would load it."""
        return Predictor(self.files)


@model_params.refusing
def fit(frame: pa.Table, parts: Parts, use_case: UseCase, feature_set: str) -> Fitted:
    """Find the rounds and the calibration by a first model, then train on train and tune; part 2 is
    left alone.

    The first model is fitted on part 0 and stops early on part 1; slope and offset are fitted on
    its scores of part 1, the newest rows that a model was not fitted on. The model that is kept has
    as many rounds, fitted on both parts: the newest outcomes count most in what follows them.
    Categories, golden rows and the baseline are of both parts too; of part 2 only metrics are
    taken. Parts 0 and 1 must each hold both classes.
    """
    import lightgbm

    labels = labels_of(frame)
    train, tune, evaluation = (parts == number for number in range(len(splits.PARTS)))
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
    slope, offset = platt(held_out, labels[tune])
    del first, data
    text = lightgbm.train(params, dataset(used), num_boost_round=rounds).model_to_string()
    booster = lightgbm.Booster(model_str=text)

    def raw(rows: Numbers) -> Numbers:
        return np.asarray(booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)

    schema = replace(schema, slope=slope, offset=offset)
    rows = golden_rows(seen, schema)
    scores = calibrated(raw(encode(rows, schema)), slope, offset)
    golden = json.dumps({"rows": rows, "scores": scores.tolist()}, allow_nan=False).encode()
    schema = replace(schema, golden="sha256:" + hashlib.sha256(golden).hexdigest())
    files = {
        "model.txt": text.encode(),
        "schema.json": schema.to_json().encode(),
        "golden.json": golden,
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
    return Fitted(files, rounds, params, metrics)


def parameters(use_case: UseCase) -> dict[str, Any]:
    """Return LightGBM's parameters under its own names; what determinism needs cannot be set
    otherwise.

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
    return {**DEFAULTS, **model_params.canonical(use_case.training.params), **forced}


def _least_rounds(limit: int, params: dict[str, Any]) -> int:
    """Return the fewest rounds of a model, within the most that it may have."""
    rate = float(params["learning_rate"])
    return min(limit, math.ceil(LEAST_LEARNT / rate) if rate > 0 else 1)


def learn_schema(train: pa.Table, use_case: UseCase, feature_set: str) -> Schema:
    """Return the uncalibrated schema of the training rows; categories beyond the 200 most
    frequent count as unknown.
    """
    features = []
    for name in use_case.trained_features:
        kind = use_case.feature_types[name]
        if kind != "string":
            features.append(Feature(name, kind))
            continue
        counts = Counter(value for value in train.column(name).to_pylist() if value is not None)
        kept = sorted(sorted(counts, key=lambda value: (-counts[value], value))[:MAX_CATEGORIES])
        codes = {value: code for code, value in enumerate(kept)}
        features.append(Feature(name, kind, codes, missing=len(kept), unknown=len(kept) + 1))
    return Schema(
        use_case.name, feature_set, tuple(features), 1.0, 0.0, use_case.decision.threshold, ""
    )


def platt(raw: Numbers, labels: Numbers) -> tuple[float, float]:
    """Return slope and offset of the sigmoid over raw scores; (1, 0) where the fit would not rise.

    Platt (1999), "Probabilistic outputs for support vector machines", with his smoothed targets, by
    Newton steps.
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    targets = np.where(labels == 1.0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([raw, np.ones_like(raw)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        scores = calibrated(raw, float(weights[0]), float(weights[1]))
        gradient = design.T @ (scores - targets)
        curvature = design.T @ (design * (scores * (1 - scores))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    good = bool(np.isfinite(weights).all()) and weights[0] > 0
    return (float(weights[0]), float(weights[1])) if good else (1.0, 0.0)


def golden_rows(frame: pa.Table, schema: Schema) -> list[dict[str, Any]]:
    """Return rows to ask a model after loading: real ones, nulls, and categories that training
    never saw.
    """
    spread: Sequence[int] = (
        np.unique(np.linspace(0, len(frame) - 1, GOLDEN_ROWS).astype(int)).tolist()
        if len(frame)
        else []
    )
    rows: list[dict[str, Any]] = (
        frame.select(schema.names).take(pa.array(spread, pa.int64())).to_pylist()
    )
    rows = [{name: _plain(value) for name, value in row.items()} for row in rows]
    empty: dict[str, Any] = dict.fromkeys(schema.names)
    unseen = {
        name: UNSEEN
        for name, feature in zip(schema.names, schema.features, strict=True)
        if feature.codes is not None
    }
    base = rows[0] if rows else empty
    return [*rows, empty, {**base, **unseen}, {**empty, **unseen}]


def baseline(
    matrix: Numbers,
    labels: Numbers,
    used: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    schema: Schema,
) -> Numbers:
    """Return the scores of a logistic regression (one-hot, standardised, missing as its own
    column) on the asked rows.
    """
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    if not asked.any():
        return statistics.EMPTY
    rows = np.arange(len(matrix))
    blocks = []
    for position, feature in enumerate(schema.features):
        values = matrix[:, position]
        if feature.codes is not None:
            # One column a category: as a dense matrix it takes gigabytes where categories are many.
            ones = np.ones(len(values))
            codes = values.astype(np.int64)
            blocks.append(
                sparse.csr_array((ones, (rows, codes)), shape=(len(values), feature.unknown + 1))
            )
            continue
        missing = np.isnan(values)
        known = values[used & ~missing]
        center, scale = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        blocks.append(
            sparse.csr_array(
                np.where(missing, 0.0, np.clip((values - center) / (scale or 1.0), -10, 10))[
                    :, None
                ]
            )
        )
        blocks.append(sparse.csr_array(missing.astype(np.float64)[:, None]))
    design = sparse.hstack(blocks, format="csr")
    fitted = design[used]
    varies = fitted.max(axis=0).toarray() > fitted.min(axis=0).toarray()
    design = design[:, np.flatnonzero(varies)]
    if design.shape[1] == 0:
        return np.full(int(asked.sum()), float(labels[used].mean()))
    model = LogisticRegression(C=1.0, solver="lbfgs", tol=1e-6, max_iter=1000).fit(
        design[used], labels[used]
    )
    return np.asarray(model.predict_proba(design[asked])[:, 1], dtype=np.float64)


def out_of_fold_auc(frame: pa.Table, use_case: UseCase, folds: int = 5) -> float:
    """Return the AUC of scores that each row got from a model that never saw its entity;
    registers nothing.
    """
    frame = frame.sort_by([("event_timestamp", "ascending"), (use_case.entity.key, "ascending")])
    entities = frame.column(use_case.entity.key).to_pylist()
    fold = (splits.hash_shares(entities, use_case.training.seed) * folds).astype(int)
    tuning = splits.hash_shares(entities, use_case.training.seed + 1) < use_case.training.split.tune
    scores = np.full(len(frame), np.nan)
    for number in range(folds):
        parts = np.where(fold == number, 2, np.where(tuning, 1, 0)).astype(np.int8)
        predictor = fit(frame, parts, use_case, "out-of-fold").predictor
        asked = frame.filter(pa.array(fold == number))
        scores[fold == number] = predictor.many(columns_of(asked, predictor.schema))
    return statistics.auc(labels_of(frame), scores)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
