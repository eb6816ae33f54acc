"""Population stability index of one feature: numpy and Arrow only, no state.

PSI = sum over bins of (current share - reference share) * ln(current share / reference share). The bins come from the
reference alone; missing values are a bin of their own, and values that the reference never showed fall where they can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

BINS = 10
ROWS_PER_BIN = 50  # fewer rows, fewer bins: the index of equal samples is about (bins - 1) * (1/n + 1/m)
ROWS_PER_CATEGORY = 20  # of which the smaller side is expected to have fewer rows is rare
MIN_ROWS = 50
MAX_CATEGORIES = 50
FLOOR = 1e-4  # an empty bin counts as one in ten thousand, whatever the sample

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Stability:
    """The index of one feature; `psi` is None where it cannot be computed, and `note` says why."""

    psi: float | None
    bins: int
    reference_missing: float | None = None
    current_missing: float | None = None
    unseen: float = 0.0
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values for records and audit."""
        return {name: round(value, 9) if isinstance(value, float) else value for name, value in asdict(self).items()}


def stability(reference: pa.Table, current: pa.Table, types: Mapping[str, str]) -> dict[str, Stability]:
    """Return the stability of every feature in `types` (its declared type) that both tables should hold."""
    return {name: of_column(_column(reference, name), _column(current, name), kind) for name, kind in types.items()}


def of_column(reference: pa.ChunkedArray | None, current: pa.ChunkedArray | None, kind: str) -> Stability:
    """Return the stability of one column; `kind` is its declared type (int64, float64: numeric; the others: categories)."""
    if reference is None or current is None:
        return Stability(None, 0, note=f"not in the {'reference' if reference is None else 'partition'}")
    if min(len(reference), len(current)) < MIN_ROWS:
        return Stability(None, 0, note=f"fewer than {MIN_ROWS} rows on a side")
    if kind in ("int64", "float64"):
        return numeric(_floats(reference), _floats(current))
    return categorical(_texts(reference), _texts(current))


def numeric(reference: Array, current: Array) -> Stability:
    """Compare two float arrays (NaN: missing) over quantile bins of the reference; infinities fall into the outermost bins."""
    bins = max(2, min(BINS, min(len(reference), len(current)) // ROWS_PER_BIN))
    edges = _edges(reference[np.isfinite(reference)], bins)
    expected, actual = _histogram(reference, edges), _histogram(current, edges)
    unseen = float(actual[:-1][expected[:-1] == 0].sum() / len(current))
    return _stability(expected, actual, unseen, all_missing=not np.isfinite(reference).any())


def categorical(reference: Array, current: Array) -> Stability:
    """Compare two object arrays of text (None: missing); rare categories of the reference share a bin, new ones another."""
    known, counts = np.unique(reference[reference != np.array(None)].astype(str), return_counts=True)
    smaller = min(len(reference), len(current))
    often = known[counts * smaller >= ROWS_PER_CATEGORY * len(reference)]
    common = set(often[np.argsort(-counts[np.isin(known, often)], kind="stable")][:MAX_CATEGORIES].tolist())
    codes = {name: index for index, name in enumerate(sorted(common))}
    rare = {str(name) for name in known} - common
    expected, actual = (_counts(side, codes, rare) for side in (reference, current))
    return _stability(expected, actual, float(actual[-2] / len(current)), all_missing=len(known) == 0)


def _stability(expected: Array, actual: Array, unseen: float, *, all_missing: bool) -> Stability:
    """Return the index of two vectors of counts over the same bins, the last of which counts missing values."""
    missing = float(expected[-1] / expected.sum()), float(actual[-1] / actual.sum())
    used = (expected + actual) > 0
    p, q = _shares(expected[used]), _shares(actual[used])
    value = float(np.sum((q - p) * np.log(q / p)))
    note = "no value in the reference" if all_missing else ""
    return Stability(value, int(used.sum()), *missing, unseen=unseen, note=note)


def _shares(counts: Array) -> Array:
    """Return shares, with half a row added to every bin where one is empty (small samples) and a floor (large ones)."""
    added = 0.5 if (counts == 0).any() else 0.0
    shares: Array = np.maximum((counts + added) / (counts.sum() + added * len(counts)), FLOOR)
    return shares


def _edges(finite: Array, bins: int) -> Array:
    """Return bin edges; a value that holds a whole quantile (or is one of few) gets a bin of its own."""
    if len(finite) == 0:
        return np.empty(0)
    distinct = np.unique(finite)
    if len(distinct) <= bins:
        return np.unique(np.concatenate([distinct, np.nextafter(distinct, np.inf)]))
    quantiles = np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    values, counts = np.unique(quantiles, return_counts=True)
    return np.unique(np.concatenate([values, np.nextafter(values[counts > 1], np.inf)]))


def _histogram(values: Array, edges: Array) -> Array:
    """Return counts for the intervals [edge, next edge) and, last, for NaN."""
    missing = np.isnan(values)
    bins = np.searchsorted(edges, values[~missing], side="right")
    return np.append(np.bincount(bins, minlength=len(edges) + 1), missing.sum()).astype(float)


def _counts(values: Array, codes: Mapping[str, int], rare: set[str]) -> Array:
    """Return counts for: each common category, the rare ones together, unseen ones together, missing."""
    found, counts = np.unique(values[values != np.array(None)].astype(str), return_counts=True)
    result = np.zeros(len(codes) + 3)
    for name, count in zip(found.tolist(), counts.tolist(), strict=True):
        result[codes.get(name, len(codes) + (0 if name in rare else 1))] += count
    result[-1] = len(values) - counts.sum()
    return result


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    return table.column(name) if name in table.column_names else None


def _floats(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=float)


def _texts(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa

    return np.asarray(column.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)
