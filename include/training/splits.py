"""The parts of a training: train, tune and evaluation.

They are divided by time, or by a hash of seed and entity where all decisions share one date. By
time the evaluation part is the newest share of the rows. The decisions right before it belong to
no part (the embargo): what is served was trained on decisions whose outcomes are known, so it is
older than what it scores by the outcome's delay, and so it has to be when judged. Of what is left
the newest share is the tune part. A boundary is the first moment that begins at or after its row,
so decisions of one moment are never divided.

Boundaries are a function of the decisions alone and never move back as decisions are added at the
end: rows that a later model is judged on were never trained on by an earlier one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from include.config.use_case_model import Split

TRAIN, TUNE, EVALUATION = "train", "tune", "evaluation"
PARTS = (TRAIN, TUNE, EVALUATION)
NO_PART = -1
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Boundaries:
    """How rows were divided; `reason` says why nothing could be.

    Moments are UTC microseconds, and there by time only. Decisions from `tune_until` up to
    `evaluation_from` are the embargo.
    """

    by: Literal["time", "hash"]
    tune_from: int | None = None
    tune_until: int | None = None
    evaluation_from: int | None = None
    reason: str = ""


def boundaries(
    moments: NDArray[np.int64],
    split: Split,
    *,
    embargo: timedelta | None = None,
    delay: timedelta = timedelta(0),
) -> Boundaries:
    """Return the boundaries for decisions at `moments` (UTC microseconds).

    The embargo that is not stated is the outcome's delay, but at most a tenth of the span before
    the evaluation part. `reason` is set where decisions have fewer than three different moments,
    which is too few for a split by time.
    """
    moments = np.sort(moments)
    distinct = np.unique(moments)
    by = split.by if split.by != "auto" else ("time" if len(distinct) > 1 else "hash")
    if by == "hash":
        return Boundaries("hash")
    if len(distinct) < 3:
        return Boundaries(
            "time",
            reason=f"decisions have only {len(distinct)} different times; a split by time needs "
            "three",
        )
    evaluation_from = _newest(moments, distinct, _millionths(split.evaluation), least=2)
    if embargo is None:
        # A tenth of the span up to here and not to the last decision: one that is added at the end
        # would lengthen the embargo and move the tune part back. From the row at a twentieth: one
        # row of long ago would lengthen it as well.
        span = evaluation_from - int(moments[len(moments) // 20])
        taken = min(delay // timedelta(microseconds=1), max(span, 0) // 10)
    else:
        taken = embargo // timedelta(microseconds=1)
    # An outcome is known after its delay has passed, not when it passes: a decision exactly so long
    # before counts as embargoed.
    tune_until = max(evaluation_from - taken, int(distinct[1]) + 1)
    left = moments[moments < tune_until]
    rest = _MILLION - _millionths(split.evaluation)
    tune = min(_millionths(split.tune) * _MILLION // rest, _MILLION) if rest else _MILLION
    tune_from = _newest(left, distinct[distinct < tune_until], tune, least=1)
    return Boundaries("time", tune_from, tune_until, evaluation_from)


def assign(
    entities: Sequence[object],
    moments: NDArray[np.int64],
    split: Split,
    seed: int,
    bounds: Boundaries,
) -> NDArray[np.int8]:
    """Return the part of every row as its position in PARTS, or NO_PART."""
    if bounds.by == "hash":
        shares = hash_shares(entities, seed)
        limits = np.array([1 - split.evaluation - split.tune, 1 - split.evaluation])
        return np.searchsorted(limits, shares, side="right").astype(np.int8)
    if bounds.tune_from is None or bounds.tune_until is None or bounds.evaluation_from is None:
        return np.zeros(len(moments), dtype=np.int8)
    edges = np.array([bounds.tune_from, bounds.tune_until, bounds.evaluation_from], dtype=np.int64)
    names = np.array([0, 1, NO_PART, 2], dtype=np.int8)
    return names[np.searchsorted(edges, moments, side="right")]


def judged(
    entities: Sequence[object],
    moments: NDArray[np.int64],
    split: Split,
    seed: int,
    bounds: Boundaries,
) -> NDArray[np.bool_]:
    """Tell which decisions, used or not, are of the evaluation part's time (by hash: entities)."""
    if bounds.by == "hash":
        return hash_shares(entities, seed) >= 1 - split.evaluation
    return (
        moments >= (bounds.evaluation_from or 0)
        if bounds.evaluation_from is not None
        else np.zeros(len(moments), dtype=np.bool_)
    )


def hash_shares(entities: Sequence[object], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for every entity that depends on seed and entity only."""
    key = str(seed).encode()[:64]
    shares: dict[object, float] = {}
    for entity in entities:
        if entity not in shares:
            # Seven bytes: a float holds 53 of their 56 bits.
            digest = hashlib.blake2b(str(entity).encode(), key=key, digest_size=7).digest()
            shares[entity] = int.from_bytes(digest, "big") / 2**56
    return np.array([shares[entity] for entity in entities], dtype=np.float64)


def subsample(
    entities: Sequence[object], moments: NDArray[np.int64], *, limit: int, seed: int
) -> NDArray[np.int64]:
    """Return the ascending positions of at most `limit` rows.

    They are chosen by a hash of seed, entity and moment, so rows are kept whatever their order and
    whatever other rows there are.
    """
    if len(moments) <= limit:
        return np.arange(len(moments), dtype=np.int64)
    pairs = [
        f"{entity}|{moment}" for entity, moment in zip(entities, moments.tolist(), strict=True)
    ]
    order = np.argsort(hash_shares(pairs, seed), kind="stable")
    return np.sort(order[:limit])


def _newest(
    moments: NDArray[np.int64], distinct: NDArray[np.int64], millionths: int, *, least: int
) -> int:
    """Return the moment from which on the newest share of the rows lies; `moments` are sorted.

    It is the first that begins at or after its row, so that no moment is divided. At least `least`
    different moments stay before it, and one behind it.
    """
    row = len(moments) - len(moments) * millionths // _MILLION
    begins = int(np.searchsorted(distinct, moments[row - 1], side="right")) if row else 0
    return int(distinct[min(max(begins, least), len(distinct) - 1)])


def _millionths(share: float) -> int:
    """Return a share as a whole number, by which rows are divided without a rounding error."""
    return round(share * _MILLION)
