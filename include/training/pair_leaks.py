"""Pairs of features of which it tells the outcome whether they are equal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.models import metrics
from include.models.metrics import Numbers
from include.training.leak_findings import Finding, exclude, known, level_of

LEAST_SHARE = 0.1  # of an outcome's rows, which the telling part holds
PAIR_ODDS = 6.0  # what equality must at least multiply the odds by
PAIR_VALUES = 50  # of more values columns are no categories


def find_pairs(
    train: pa.Table, use_case: UseCase, labels: Numbers, names: Sequence[str]
) -> Iterator[Finding]:
    """Yield two columns of one set of values where it tells the outcome that they are equal."""
    sets: dict[str, frozenset[Any]] = {}
    for name in names:
        column = train.column(name)
        if pa.types.is_boolean(column.type) or pa.types.is_floating(column.type):
            continue
        values = column.unique()
        if 2 < len(values) <= PAIR_VALUES:
            sets[name] = frozenset(values.drop_null().to_pylist())
    for first, second in itertools.combinations(sets, 2):
        shared = sets[first] & sets[second]
        one, other = train.column(first), train.column(second)
        if one.type != other.type or 2 * len(shared) < len(sets[first] | sets[second]):
            continue
        equal = pc.fill_null(pc.equal(one, other), False).to_numpy(zero_copy_only=False)
        odds, share, word = _odds(np.asarray(equal, dtype=bool), labels)
        if odds >= PAIR_ODDS and share >= LEAST_SHARE:
            text = (
                f"the outcome leaks through {first} beside {second}: whether the two are equal "
                f"multiplies its odds by {odds:.1f} ({share:.0%} of an outcome's rows are {word})"
            )
            remedy = (
                "Is one of them written after the other? Then write "
                f"{exclude(use_case, first)} or {exclude(use_case, second)}; if both are known at "
                f"the decision, {known(use_case, first, second)}"
            )
            # Whole numbers are mostly counts, of which both are 0 where nothing happened.
            counts = pa.types.is_integer(one.type)
            level = "question" if counts else level_of(use_case, first, second)
            yield Finding("pair", level, (first, second), text, remedy)


def _odds(equal: NDArray[np.bool_], labels: Numbers) -> tuple[float, float, str]:
    """Return by how much equality changes the odds, the telling part's share, and its name.

    The change is the lower end of its 95 % interval (Woolf 1955). Of equal and unequal rows the
    fewer are the telling part; its share is that of the outcome which it holds more of.
    """
    # Half a row is added to each cell, so that none is empty (Haldane 1956).
    cells = [
        [float((labels[equal == side] == outcome).sum()) + 0.5 for outcome in (0, 1)]
        for side in (False, True)
    ]
    (no_zero, no_one), (yes_zero, yes_one) = cells
    logarithm = abs(float(np.log(no_zero * yes_one / (no_one * yes_zero))))
    spread = metrics.Z95 * float(np.sqrt(sum(1 / cell for row in cells for cell in row)))
    smaller = equal.sum() * 2 <= len(equal)
    rows = equal if smaller else ~equal
    shares = [
        float((rows & (labels == outcome)).sum() / max((labels == outcome).sum(), 1))
        for outcome in (0, 1)
    ]
    return (
        float(np.exp(max(logarithm - spread, 0.0))),
        max(shares),
        "equal" if smaller else "unequal",
    )
