"""Features that are wrong by themselves: of no value, an id, or the outcome in other words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.remedies import remedy, rounded_up
from include.config.use_case import UseCase
from include.models import metrics
from include.models.matrix import floats
from include.models.metrics import Numbers
from include.training.free_text import hardly_repeats
from include.training.leak_findings import Finding, ask_when_written, exclude, level_of

MIN_ENTITIES = 50
# What marks a part of a column that tells the outcome: at least a tenth of a class, and not one
# row of the other class where 20 would be there if it were as its neighbourhood is.
LEAST_SHARE = 0.1
LEAST_EXPECTED = 20.0
PURE_ROWS = 200  # of fewer a part that is honest, and 98 % of one class, is often all of it


def find_useless(train: pa.Table, use_case: UseCase, name: str) -> Finding | None:
    """Find a feature that has no value, or that names its rows or entities."""
    column, whose = train.column(name), f"feature {name!r} of {use_case.name}"
    if 0 < len(column) == column.null_count:
        text = f"{whose} is null on all {len(column)} training rows"
        return Finding(
            "null",
            "refusal",
            (name,),
            text,
            f"Mend its SQL, its ttl or its source, or write {exclude(use_case, name)}",
        )
    if is_id(train, name, use_case.entity.key):
        text = f"{whose} is an id: it names its rows or entities and would be learnt by heart"
        line = f"Remove it, or write {exclude(use_case, name)}"
        return Finding("id", "refusal", (name,), text, line)
    return None


def find_leaking(
    train: pa.Table, use_case: UseCase, labels: Numbers, name: str, auc: float
) -> Finding | None:
    """Find a feature that tells the outcome by itself; `auc` is its own.

    It may do so as a whole, by its presence, or in a part of its values.
    """
    if auc > use_case.gates.max_feature_auc:
        limit = use_case.gates.max_feature_auc
        text = (
            f"the outcome leaks through {name} ({auc:.3f}): alone it passes "
            f"gates.max_feature_auc ({limit:g})"
        )
        higher = remedy(("gates", "max_feature_auc"), min(rounded_up(auc), 1.0))
        line = f"Write {exclude(use_case, name)}; if it truly is known at the decision, {higher}"
        return Finding("alone", "refusal", (name,), text, line)
    for kind, part in itertools.chain(
        _presence(train.column(name), labels), _pure(train.column(name), labels)
    ):
        text = f"the outcome leaks through {name}: {part}"
        return Finding(
            kind, level_of(use_case, name), (name,), text, ask_when_written(use_case, name)
        )
    return None


def _presence(column: pa.ChunkedArray, labels: Numbers) -> Iterator[tuple[str, str]]:
    """Find that a value is there, or is missing, for one outcome alone.

    Yields the kind of finding and, in words, which rows are meant.
    """
    missing = np.asarray(
        pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False), dtype=bool
    )
    groups = [("is empty", missing), ("has a value", ~missing)]
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        nothing = missing | (floats(column) == 0)
        groups += [("is empty or 0", nothing), ("is neither empty nor 0", ~nothing)]
    for what, rows in groups:
        count = int(rows.sum())
        if not 0 < count < len(rows):
            continue
        ones = int(labels[rows].sum())
        # The share of outcome 1 in all other rows: what would be expected in these.
        rate_of_ones = (int(labels.sum()) - ones) / (len(rows) - count)
        cases = ((1, count - ones, 1 - rate_of_ones), (0, ones, rate_of_ones))
        for outcome, of_other_outcome, expected_rate in cases:
            share = count / float((labels == outcome).sum() or 1)
            expected = count * expected_rate
            if of_other_outcome == 0 and share >= LEAST_SHARE and expected >= LEAST_EXPECTED:
                yield (
                    "presence",
                    f"where it {what}, all {count} rows have outcome {outcome} ({share:.0%} of "
                    "them)",
                )


def _pure(column: pa.ChunkedArray, labels: Numbers) -> Iterator[tuple[str, str]]:
    """Find a category, or a range of numbers, in which all rows have one outcome.

    Beside it they have both. Yields the kind of finding and, in words, which rows are meant.
    """
    valid = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), dtype=bool)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text:
        encoded = metrics.encoded_text(column)
        codes, shown = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    else:
        numbers = floats(column)
        valid &= ~np.isnan(numbers)
        values, codes = np.unique(numbers, return_inverse=True)
        shown = values.tolist()
    ones = np.bincount(codes[valid], weights=labels[valid], minlength=len(shown)).astype(np.float64)
    rows = np.bincount(codes[valid], minlength=len(shown)).astype(np.float64)
    base = float(labels.mean())
    # By value: rows of the outcome, rows of the other, and the other's share of all rows.
    for outcome, own, other, rate in (
        (1, ones, rows - ones, 1 - base),
        (0, rows - ones, ones, base),
    ):
        least = max(LEAST_SHARE * float((labels == outcome).sum()), PURE_ROWS)
        for first, end in _runs(other, own, single=text):
            count = float(own[first:end].sum())
            if count < least:
                continue
            beside = rate if text else _beside(other, rows, first, end, count)
            if beside >= 0.5 * rate and count * beside >= LEAST_EXPECTED:
                part = (
                    f"is {shown[first]!r}"
                    if end - first == 1
                    else f"lies in {shown[first]:g} to {shown[end - 1]:g}"
                )
                share = count / float((labels == outcome).sum())
                yield (
                    "pure",
                    f"where it {part}, all {count:.0f} rows have outcome {outcome} ({share:.0%} "
                    "of them)",
                )


def _runs(other: Numbers, own: Numbers, *, single: bool) -> Iterator[tuple[int, int]]:
    """Yield the longest runs of values without the other outcome, as first and end.

    Categories have no order: each is a run of its own (`single`).
    """
    if single:
        clean = (other == 0) & (own > 0)
        yield from ((int(place), int(place) + 1) for place in np.flatnonzero(clean))
        return
    clean = other == 0
    # +1 where a run begins, -1 right after its end: by turns, as the ends are padded.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], clean, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _beside(other: Numbers, rows: Numbers, first: int, end: int, count: float) -> float:
    """Return the other outcome's share in as many rows on each side of a range.

    A feature that honestly tells the outcome changes slowly: beside it the other is rare as well.
    """
    sides = []
    for side in (slice(first - 1, None, -1) if first else slice(0, 0), slice(end, None)):
        total = np.cumsum(rows[side])
        if len(total):
            upto = min(int(np.searchsorted(total, count)) + 1, len(total))
            sides.append((float(other[side][:upto].sum()), float(total[upto - 1])))
    return sum(others for others, _ in sides) / max(sum(total for _, total in sides), 1.0)


def is_id(train: pa.Table, name: str, key: str) -> bool:
    """Tell whether a feature copies the key, counts entities, or is text that hardly repeats."""
    column, entities = train.column(name), train.column(key)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        return False
    valid = pc.is_valid(column)
    column, entities = column.filter(valid), entities.filter(valid)
    values = pc.count_distinct(column).as_py()
    entity_count = pc.count_distinct(entities).as_py()
    if entity_count < MIN_ENTITIES:
        return False
    if kind == entities.type and pc.all(pc.equal(column, entities)).as_py():
        return True
    if pa.types.is_string(kind) and hardly_repeats(len(column), values):
        return True
    pairs = len(pa.table({"a": column, "b": entities}).group_by(["a", "b"]).aggregate([]))
    # One value an entity, and one entity a value.
    if not (pairs == values == entity_count):
        return False
    # Numbers that are spread out (an income, say) may well be unique: those of ids are dense.
    span = None if pa.types.is_string(kind) else pc.max(column).as_py() - pc.min(column).as_py()
    return span is None or span < 2 * values
