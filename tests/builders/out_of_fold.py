"""Out-of-fold scores: what a kind makes of a whole data set, to compare with literature."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from include.config.use_case import UseCase
from include.models import metrics
from include.models.kinds import DEFAULT, kind_of
from include.models.matrix import columns_of, labels_of
from include.training import splits


def out_of_fold_auc(frame: pa.Table, use_case: UseCase, folds: int = 5) -> float:
    """Return the AUC of scores that each row got from a model that never saw its entity."""
    frame = frame.sort_by([("event_timestamp", "ascending"), (use_case.entity.key, "ascending")])
    entities = frame.column(use_case.entity.key).to_pylist()
    fold = (splits.hash_shares(entities, use_case.training.seed) * folds).astype(int)
    tuning = splits.hash_shares(entities, use_case.training.seed + 1) < use_case.training.split.tune
    scores = np.full(len(frame), np.nan)
    for number in range(folds):
        parts = np.where(fold == number, 2, np.where(tuning, 1, 0)).astype(np.int8)
        model = kind_of(DEFAULT).fit(frame, parts, use_case, "out-of-fold").predictor
        asked = frame.filter(pa.array(fold == number))
        scores[fold == number] = model.many(columns_of(asked, model.schema))
    return metrics.auc(labels_of(frame), scores)
