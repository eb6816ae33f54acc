"""A table of features as the numbers that a model is fitted and asked on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.errors import SourceError
from include.models.encoding import Columns, Schema

Numbers = NDArray[np.float64]


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
    scored: the cast is not a safe one, so that no number of theirs ends a stage.
    """
    doubles = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(doubles, dtype=np.float64)
