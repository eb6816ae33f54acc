"""A table of features as the numbers that a model is fitted and asked on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.errors import SourceError
from include.models.encoding import Columns, Feature, Schema
from include.texts import plain_text

Numbers = NDArray[np.float64]
Parts = NDArray[np.int8]  # of each row: 0 trains, 1 tunes, 2 evaluates

MAX_CATEGORIES = 200
GOLDEN_ROWS = 12
UNSEEN = "\u2205 never seen in training"


def columns_of(frame: pa.Table, schema: Schema) -> Columns:
    """Return the columns that a schema reads, as `encode` takes them."""
    columns: dict[str, Sequence[object] | NDArray[np.generic]] = {}
    for feature in schema.features:
        column = frame.column(feature.name)
        if feature.codes is not None:
            columns[feature.name] = column.to_pylist()
        else:
            columns[feature.name] = floats(column)
    return columns


def labels_of(frame: pa.Table) -> Numbers:
    """Return the labels as 0.0 and 1.0.

    Raises:
        SourceError: a label is null or something else.
    """
    labels = floats(frame.column("label"))
    wrong = ~np.isin(labels, (0.0, 1.0))
    if wrong.any():
        raise SourceError(
            f"{int(wrong.sum())} labels are neither 0 nor 1 (such as {labels[wrong][0]}); mend "
            "the label's column or SQL"
        )
    return labels


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a number or bool column as doubles, null as NaN, infinities as they are.

    An integer beyond 2^53 becomes the nearest double, as `float()` makes it when a request is
    scored: a safe cast would refuse it and end the stage.
    """
    doubles = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(doubles, dtype=np.float64)


def learn_schema(train: pa.Table, use_case: UseCase, feature_set: str) -> Schema:
    """Return the uncalibrated schema of the training rows.

    Only the `MAX_CATEGORIES` most frequent categories have a code; others count as unknown.
    """
    features = []
    for name in use_case.trained_features:
        kind = use_case.feature_types[name]
        if kind != "string":
            features.append(Feature(name, kind))
            continue
        counts = Counter(value for value in train.column(name).to_pylist() if value is not None)
        # By count, then by text: equal rows in any order choose the same. Codes follow the text.
        kept = sorted(sorted(counts, key=lambda value: (-counts[value], value))[:MAX_CATEGORIES])
        codes = {value: code for code, value in enumerate(kept)}
        features.append(
            Feature(
                name,
                kind,
                codes,
                missing=len(kept),
                unknown=len(kept) + 1,
                null_values=_null_values(use_case, name),
            )
        )
    return Schema(
        use_case.name, feature_set, tuple(features), 1.0, 0.0, use_case.decision.threshold, ""
    )


def _null_values(use_case: UseCase, feature: str) -> tuple[str, ...]:
    """Return the texts that mean no value in the delivered columns of a feature's name.

    Of a view that is made by SQL it may be a column of any source. They are sorted: the order in a
    use case's file changes no bundle.
    """
    view = next(view for view in use_case.features.values() if feature in view.columns)
    tokens = {
        plain_text(token)
        for name, source in use_case.sources.items()
        if view.source in (None, name)
        and (column := source.columns.get(feature)) is not None
        and column.is_delivered
        for token in (source.null_values if column.null_values is None else column.null_values)
    }
    return tuple(sorted(tokens - {""}))


def choose_golden_rows(frame: pa.Table, schema: Schema) -> list[dict[str, Any]]:
    """Return rows to ask a model after loading: real ones, nulls, and categories never seen.

    Real ones are spread evenly over the frame, which is sorted by time.
    """
    spread: Sequence[int] = (
        np.unique(np.linspace(0, len(frame) - 1, GOLDEN_ROWS).astype(int)).tolist()
        if len(frame)
        else []
    )
    rows: list[dict[str, Any]] = (
        frame.select(schema.names).take(pa.array(spread, pa.int64())).to_pylist()
    )
    rows = [{name: _as_json(value) for name, value in row.items()} for row in rows]
    empty: dict[str, Any] = dict.fromkeys(schema.names)
    unseen = {
        name: UNSEEN
        for name, feature in zip(schema.names, schema.features, strict=True)
        if feature.codes is not None
    }
    base = rows[0] if rows else empty
    return [*rows, empty, {**base, **unseen}, {**empty, **unseen}]


def _as_json(value: Any) -> Any:
    """Return a cell, null for a number that JSON lacks."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
