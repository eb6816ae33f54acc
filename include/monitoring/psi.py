"""Population stability index of one feature: numpy and Arrow only, no state.

PSI = sum over bins of (current share - reference share) * ln(current share / reference share). The
bins come from the reference alone; missing values are a bin of their own, and values that the
reference never showed fall where they can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from include.models.matrix import floats
from include.pipeline.drift_outputs import FeatureStability

if TYPE_CHECKING:
    import pyarrow as pa

BINS = 10
# Fewer rows, fewer bins: the index of equal samples is about (bins - 1) * (1/n + 1/m).
ROWS_PER_BIN = 50
ROWS_PER_CATEGORY = 20  # of which the smaller side is expected to have fewer rows is rare
MIN_ROWS = 50
MAX_CATEGORIES = 50  # that have a bin of their own
FLOOR = 1e-4  # an empty bin counts as one in ten thousand, whatever the sample

PIECE = 100_000  # rows
PREFIX = 1_000  # rows, of which a column of many values shows more than BINS

Array = np.ndarray[Any, np.dtype[Any]]
Texts: TypeAlias = "pa.ChunkedArray | Array"


@dataclass(frozen=True, slots=True)
class Stability:
    """The index of one feature; `psi` is None where it cannot be computed, and `note` says why."""

    psi: float | None
    bins: int
    reference_missing: float | None = None
    current_missing: float | None = None
    unseen: float = 0.0
    note: str = ""

    def recorded(self) -> FeatureStability:
        """Return the index as it is recorded, to nine digits."""
        rounded = {
            name: round(value, 9) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }
        return msgspec.convert(rounded, FeatureStability)


def stability(
    reference: pa.Table, current: pa.Table, types: Mapping[str, str]
) -> dict[str, Stability]:
    """Return the stability of every feature; `types` is the declared type of each."""
    return {
        name: of_column(_column(reference, name), _column(current, name), kind)
        for name, kind in types.items()
    }


def of_column(
    reference: pa.ChunkedArray | None, current: pa.ChunkedArray | None, kind: str
) -> Stability:
    """Return the stability of one column; None: that side does not have it.

    `kind` is the declared type: int64 and float64 are numbers, the others categories.
    """
    if reference is None or current is None:
        return Stability(
            None, 0, note=f"not in the {'reference' if reference is None else 'partition'}"
        )
    if min(len(reference), len(current)) < MIN_ROWS:
        return Stability(None, 0, note=f"fewer than {MIN_ROWS} rows on a side")
    if kind in ("int64", "float64"):
        return numeric(floats(reference), floats(current))
    return categorical(reference, current)


def numeric(reference: Array, current: Array) -> Stability:
    """Compare two float arrays over quantile bins of the reference.

    NaN is missing; infinities fall into the outermost bins.
    """
    bins = max(2, min(BINS, min(len(reference), len(current)) // ROWS_PER_BIN))
    edges = _edges(reference[np.isfinite(reference)], bins)
    expected, actual = _histogram(reference, edges), _histogram(current, edges)
    unseen = float(actual[:-1][expected[:-1] == 0].sum() / len(current))
    return _stability(expected, actual, unseen, all_missing=not np.isfinite(reference).any())


def categorical(reference: Texts, current: Texts) -> Stability:
    """Compare two columns of text, of which null is missing.

    Rare categories of the reference share a bin, those that it never showed another.

    Text stays in Arrow and each value is held once: a numpy array of text makes every cell as
    wide as the longest, and a single long one would take the memory of the stage.
    """
    sides = _chunked(reference), _chunked(current)
    counted = _large(sides[0]).drop_null().value_counts()
    categories, counts = counted.field("values"), counted.field("counts").to_numpy()
    smaller = min(len(side) for side in sides)
    common = _most_frequent(
        categories, counts, np.flatnonzero(counts * smaller >= ROWS_PER_CATEGORY * len(sides[0]))
    )
    # The bin of each value that the reference shows: its own, or the one of the rare.
    bins = np.full(len(categories), len(common))
    bins[common] = np.arange(len(common))
    expected = np.bincount(bins, weights=counts, minlength=len(common) + 3)
    expected[-1] = sides[0].null_count
    actual = _counts(sides[1], categories, bins, len(common))
    return _stability(
        expected, actual, float(actual[-2] / len(sides[1])), all_missing=len(categories) == 0
    )


def _most_frequent(categories: pa.Array, counts: Array, often: Array) -> Array:
    """Return the places of the most frequent of often seen values, in alphabetical order.

    Of equally frequent ones the first in the alphabet are taken: a sort by count alone would leave
    the choice, and so the index, to the order of the rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.table(
        {"value": categories.take(pa.array(often)), "count": counts[often], "place": often}
    )
    order = [("count", "descending"), ("value", "ascending")]
    chosen = (
        table.take(pc.sort_indices(table, sort_keys=order))
        .slice(0, MAX_CATEGORIES)
        .sort_by("value")
    )
    return np.asarray(chosen.column("place").to_numpy(), dtype=np.int64)


def _stability(expected: Array, actual: Array, unseen: float, *, all_missing: bool) -> Stability:
    """Return the index of two vectors of counts over the same bins; the last counts missing."""
    missing = float(expected[-1] / expected.sum()), float(actual[-1] / actual.sum())
    used = (expected + actual) > 0
    p, q = _shares(expected[used]), _shares(actual[used])
    value = float(np.sum((q - p) * np.log(q / p)))
    note = "no value in the reference" if all_missing else ""
    return Stability(value, int(used.sum()), *missing, unseen=unseen, note=note)


def _shares(counts: Array) -> Array:
    """Return shares that are never 0, of which the index would be infinite.

    Where a bin is empty half a row is added to each: enough in a small sample. In a large one that
    is next to nothing, so there is a floor as well.
    """
    added = 0.5 if (counts == 0).any() else 0.0
    shares: Array = np.maximum((counts + added) / (counts.sum() + added * len(counts)), FLOOR)
    return shares


def _edges(finite: Array, bins: int) -> Array:
    """Return ascending bin edges; a bin is from an edge up to the next.

    A value that fills a whole quantile, or is one of few, gets a bin of its own: its second edge
    is the next float above it.
    """
    if len(finite) == 0:
        return np.empty(0)
    distinct = _few_distinct(finite, bins)
    if distinct is not None:
        return np.unique(np.concatenate([distinct, np.nextafter(distinct, np.inf)]))
    quantiles = np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    values, counts = np.unique(quantiles, return_counts=True)
    return np.unique(np.concatenate([values, np.nextafter(values[counts > 1], np.inf)]))


def _few_distinct(values: Array, most: int) -> Array | None:
    """Return the distinct values in order, or None where there are more than `most`."""
    # To sort all values takes twice as long as all quantiles, and the first rows mostly tell.
    for some in (values[:PREFIX], values):
        distinct = np.unique(some)
        if len(distinct) > most:
            return None
    return distinct


def _histogram(values: Array, edges: Array) -> Array:
    """Return counts for the intervals [edge, next edge) and, last, for NaN."""
    missing = np.isnan(values)
    bins = np.searchsorted(edges, values[~missing], side="right")
    return np.append(np.bincount(bins, minlength=len(edges) + 1), missing.sum()).astype(float)


def _counts(side: pa.ChunkedArray, categories: pa.Array, bins: Array, common: int) -> Array:
    """Return counts of each common category, of the rare, of the unseen, and of missing values.

    Rows are counted some at a time: of a column of any length only a piece is looked up at once.
    """
    import pyarrow.compute as pc

    result, places = np.zeros(common + 3), np.append(bins, common + 1)
    for chunk in side.chunks:
        for start in range(0, len(chunk), PIECE):
            present = _large(chunk.slice(start, PIECE)).drop_null()
            # A value that the reference never showed has no index: it gets the place behind all.
            index = pc.index_in(present, value_set=categories).fill_null(len(categories))
            result += np.bincount(places[index.to_numpy()], minlength=common + 3)
    result[-1] = side.null_count
    return result


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    return table.column(name) if name in table.column_names else None


def _chunked(texts: Texts) -> pa.ChunkedArray:
    import pyarrow as pa

    return (
        pa.chunked_array([pa.array(texts, pa.large_string())])
        if isinstance(texts, np.ndarray)
        else texts
    )


def _large(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return values as text that may be longer than 2 GB in all; only the offsets are copied."""
    import pyarrow as pa

    return texts.cast(pa.large_string())
