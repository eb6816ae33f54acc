"""Train, tune and evaluation: by time, or by a hash of seed and entity where all decisions share one date.

By time the evaluation part is the newest share of the span of decision times, the tune part the share before it. The
boundaries are moments, so decisions of one moment are never divided; they only move forward as history grows, so rows
that a later model is judged on were never trained on by an earlier one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from include.usecase import Split

TRAIN, TUNE, EVALUATION = "train", "tune", "evaluation"
PARTS = (TRAIN, TUNE, EVALUATION)
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Boundaries:
    """How rows were divided; moments are UTC microseconds (by time only), `reason` says why nothing could be."""

    by: Literal["time", "hash"]
    tune_from: int | None = None
    evaluation_from: int | None = None
    reason: str = ""


def boundaries(moments: NDArray[np.int64], split: Split) -> Boundaries:
    """Return the boundaries for decisions at `moments` (UTC microseconds).

    `reason` is set where decisions have fewer than three different moments, which is too few for a split by time.
    """
    distinct = np.unique(moments)
    by = split.by if split.by != "auto" else ("time" if len(distinct) > 1 else "hash")
    if by == "hash":
        return Boundaries("hash")
    if len(distinct) < 3:
        return Boundaries("time", reason=f"decisions have only {len(distinct)} different times; a split by time needs three")
    first, span = int(distinct[0]), int(distinct[-1] - distinct[0])
    evaluation_from = first + _share(span, 1 - split.evaluation)
    evaluation_from = min(max(evaluation_from, int(distinct[2])), int(distinct[-1]))
    before = distinct[distinct < evaluation_from]
    tune_from = first + _share(span, 1 - split.evaluation - split.tune)
    tune_from = max(min(tune_from, int(before[-1])), int(distinct[1]))
    return Boundaries("time", tune_from, evaluation_from)


def assign(entities: Sequence[object], moments: NDArray[np.int64], split: Split, seed: int, how: Boundaries) -> NDArray[np.int8]:
    """Return the part of every row as its position in PARTS."""
    if how.by == "hash":
        shares = hash_shares(entities, seed)
        limits = np.array([1 - split.evaluation - split.tune, 1 - split.evaluation])
        return np.searchsorted(limits, shares, side="right").astype(np.int8)
    edges = np.array([moment for moment in (how.tune_from, how.evaluation_from) if moment is not None], dtype=np.int64)
    return np.searchsorted(edges, moments, side="right").astype(np.int8)


def hash_shares(entities: Sequence[object], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for every entity that depends on seed and entity only."""
    key = str(seed).encode()[:64]
    known: dict[object, float] = {}
    for entity in entities:
        if entity not in known:
            known[entity] = int.from_bytes(hashlib.blake2b(str(entity).encode(), key=key, digest_size=7).digest(), "big") / 2**56
    return np.array([known[entity] for entity in entities], dtype=np.float64)


def thin(entities: Sequence[object], moments: NDArray[np.int64], *, limit: int, seed: int) -> NDArray[np.int64]:
    """Return the positions, ascending, of at most `limit` rows, chosen by a hash of seed, entity and moment."""
    if len(moments) <= limit:
        return np.arange(len(moments), dtype=np.int64)
    pairs = [f"{entity}|{moment}" for entity, moment in zip(entities, moments.tolist(), strict=True)]
    order = np.argsort(hash_shares(pairs, seed), kind="stable")
    return np.sort(order[:limit])


def _share(span: int, share: float) -> int:
    return span * round(share * _MILLION) // _MILLION
