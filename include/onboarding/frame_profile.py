"""What the columns of a training frame are like: values by outcome, gaps, and what each tells."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.models import metrics
from include.models.matrix import floats, labels_of
from include.onboarding.time_periods import Periods, Places
from include.point_in_time.curated import EVENT
from include.training.feature_auc import score_by_feature

BINS = 16  # of a number
FEW = 12  # different numbers up to which each has a bar of its own
TOP = 9  # categories with a bar of their own
EDGES = (0.01, 0.99)  # quantiles; what lies outside counts into the first and last bin
NAMED = 32  # letters of a value
# Of fewer rows of a class an AUC says little: its standard error is above .06.
MIN_CLASS = 20
MISSING = "missing"

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """A value or a range of values, and how many rows of each outcome have it."""

    name: str
    zeros: int
    ones: int


@dataclass(frozen=True)
class ColumnProfile:
    """A feature: its values, how often there is none, and what it tells of the outcome by itself.

    The lists have an entry for each period, None where it has too few rows. `auc_by_period` is that
    of one rule, found on all rows: below 0.5 the feature meant the opposite.
    """

    name: str
    kind: str
    distinct: int
    missing: float
    auc: float
    auc_by_period: tuple[float | None, ...]
    missing_by_period: tuple[float | None, ...]
    bars: tuple[Bar, ...]
    edges: tuple[float, ...] = ()  # of the bars that are ranges; without one they are values


@dataclass(frozen=True)
class FrameProfile:
    """The features of a training frame, in its order, and the rows that they are of."""

    rows: int
    ones: int
    periods: Periods
    columns: tuple[ColumnProfile, ...]


def profile_frame(frame: pa.Table, kinds: Mapping[str, str], periods: Periods) -> FrameProfile:
    """Return what the features of a frame are like; `kinds` has their declared types.

    Raises:
        SourceError: a label is neither 0 nor 1.
    """
    labels, places = labels_of(frame), periods.place(frame.column(EVENT))
    columns = tuple(
        _profile_column(name, kind, frame.column(name), labels, places, len(periods))
        for name, kind in kinds.items()
    )
    return FrameProfile(len(frame), int(labels.sum()), periods, columns)


def _profile_column(
    name: str, kind: str, column: pa.ChunkedArray, labels: Numbers, places: Places, periods: int
) -> ColumnProfile:
    text = pa.types.is_string(column.type)
    gaps = column.is_null() if text else pc.or_kleene(column.is_null(), _not_a_number(column))
    missing = np.asarray(gaps.to_numpy(), dtype=bool)
    auc, scores = score_by_feature(column, labels)
    distinct = pc.count_distinct(column.filter(pc.invert(gaps))).as_py()
    few = not text and distinct <= FEW
    edges: tuple[float, ...] = ()
    if text or few:
        bars = _categories(column, missing, labels, few)
    else:
        bars, edges = _bins(column, labels)
    return ColumnProfile(
        name=name,
        kind=kind,
        distinct=distinct,
        missing=float(missing.mean()) if len(missing) else 0.0,
        auc=auc,
        auc_by_period=tuple(
            _auc(labels[places == place], scores[places == place]) for place in range(periods)
        ),
        missing_by_period=tuple(
            float(missing[places == place].mean()) if (places == place).any() else None
            for place in range(periods)
        ),
        bars=(*bars, *_bar(MISSING, missing, labels)),
        edges=edges,
    )


def _not_a_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([np.isnan(floats(column))], pa.bool_())


def _auc(labels: Numbers, scores: Numbers) -> float | None:
    """Return the AUC of scores on a part of the rows; None where it has too few of a class."""
    ones = int(labels.sum())
    return metrics.auc(labels, scores) if min(ones, len(labels) - ones) >= MIN_CLASS else None


def _bar(name: str, rows: NDArray[np.bool_], labels: Numbers) -> list[Bar]:
    """Return the bar of some rows; none where there are no such rows."""
    ones, count = int(labels[rows].sum()), int(rows.sum())
    return [Bar(name, count - ones, ones)] if count else []


def _categories(
    column: pa.ChunkedArray, missing: NDArray[np.bool_], labels: Numbers, few: bool
) -> list[Bar]:
    """Return a bar for each of the most frequent values, the rest together.

    Where values are few numbers they stand in their order, else the most frequent comes first.
    """
    values = column.to_pylist()
    counts: dict[object, list[int]] = {}
    for value, label, gap in zip(values, labels, missing, strict=True):
        if not gap:
            counts.setdefault(value, [0, 0])[int(label)] += 1
    # By count, then by value: equal rows in any order give the same page.
    ranked = sorted(counts, key=lambda value: (-sum(counts[value]), str(value)))
    # One that is left over takes no more place by its name.
    some = len(ranked) if few or len(ranked) == TOP + 1 else TOP
    shown, rest = ranked[:some], ranked[some:]
    if few:
        shown = sorted(shown, key=float)  # type: ignore[arg-type]
    bars, names = [], set[str]()
    for value in shown:
        name, number = shown_value(value), 2
        while name in names:  # long values that begin alike
            name, number = f"{shown_value(value)} ({number})", number + 1
        names.add(name)
        bars.append(Bar(name, *counts[value]))
    if rest:
        zeros, ones = (sum(counts[value][place] for value in rest) for place in (0, 1))
        bars.append(Bar(f"{len(rest):,} other values", zeros, ones))
    return bars


def _bins(column: pa.ChunkedArray, labels: Numbers) -> tuple[list[Bar], tuple[float, ...]]:
    """Return bars and edges of a number with many values: ranges of one width, the ends open."""
    values = floats(column)
    known = ~np.isnan(values)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, EDGES, method="lower") if len(finite) else (0.0, 0.0)
    if not high > low:  # nearly all rows have one value
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    # The difference of two doubles can be beyond every double.
    shares = np.linspace(0, 1, BINS + 1)
    edges = low * (1 - shares) + high * shares
    with np.errstate(over="ignore"):
        # Of greater numbers doubles do not hold the halves between them.
        small = max(abs(low), abs(high)) < 2**52 and high - low < BINS
    whole = column.type == pa.int64() and small
    if whole:  # a bar for each whole number
        edges = np.arange(low, high + 2) - 0.5
    places = np.searchsorted(edges[1:-1], values[known], side="right")
    ones = np.bincount(places, weights=labels[known], minlength=len(edges) - 1).astype(int)
    counts = np.bincount(places, minlength=len(edges) - 1)
    names = [
        f"{start + 0.5:.4g}" if whole else f"{start:.4g} to {end:.4g}"
        for start, end in itertools.pairwise(edges)
    ]
    if len(finite) and finite.min() < edges[0]:
        names[0] = f"up to {edges[1] - 0.5 * whole:.4g}"
    if len(finite) and finite.max() > edges[-1]:
        names[-1] = f"from {edges[-2] + 0.5 * whole:.4g}"
    bars = [
        Bar(name, int(count - one), int(one))
        for name, count, one in zip(names, counts, ones, strict=True)
    ]
    return bars, tuple(edges.tolist())


def shown_value(value: object) -> str:
    """Return a value as a page shows it: short, and what a browser would obey made visible."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= NAMED else f"{text[: NAMED - 1]}\N{HORIZONTAL ELLIPSIS}"
    # Not printable are also the marks that turn the direction of writing.
    plain = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return plain if plain.strip() else f"{len(text)} blanks" if text else "(empty)"
