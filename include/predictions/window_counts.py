"""What a minute of a release is counted in: sums that add over minutes, boots and nodes.

Nothing here is a mean or a quantile, since those do not add. Rows are kept by cluster of entities:
requests of one entity are alike, so the spread that a test needs is that between clusters. An
entity is in one cluster for a whole release, and in another one than its share of traffic follows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache, reduce
from typing import Annotated, Any

import msgspec

CLUSTERS = 64
# The columns of `Counts.clusters`. `errors` are what a model can cause, its invalid scores among
# them; `slow` are those of the `timed` above the limit; `above` are decisions *at or above* of the
# `scored`, which are finite; scores are summed in whole thousandths, which add exactly.
REQUESTS, ERRORS, INVALID, SLOW, ABOVE, SCORED, SCORE_SUM, SCORE_SQUARES, TIMED = range(9)
COLUMNS = 9
# The columns of `Counts.pairs`: of requests that both models scored, challenger less champion.
PAIRED, DIFFERENCE_SUM, DIFFERENCE_SQUARES, DECISIONS_DIFFER = range(4)
PAIR_COLUMNS = 4
THOUSANDTHS = 1000
# Microseconds of the model's own time; a bin holds what is at or below its bound, the last one the
# rest. Each bound is the one before times the root of 2, from 10 us to 3.7 s.
TIME_BOUNDS = tuple(round(10 * 2 ** (step / 2)) for step in range(38))
SCORE_BINS = 20  # equal ones of [0, 1]
ENTITY_BITS = 4096
SHADOW, CHAMPION, CHALLENGER = "shadow", "champion", "challenger"  # arms; shadow: never answered
# In place of the answering arm: no model answered. `NEITHER`: the one before the champion was asked
# the same, and failed as well.
NOBODY, NEITHER = "none", "neither"

# What a float holds exactly; and below zero nothing is counted, except of differences.
_MOST = 1 << 53
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_Signed = Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
_Row = Annotated[list[_Count], msgspec.Meta(min_length=COLUMNS, max_length=COLUMNS)]
_Pair = Annotated[list[_Signed], msgspec.Meta(min_length=PAIR_COLUMNS, max_length=PAIR_COLUMNS)]
# Columns that are some of another one's.
_PARTS = ((ERRORS, REQUESTS), (INVALID, REQUESTS), (SLOW, TIMED), (ABOVE, SCORED))
_TIME_BINS = len(TIME_BOUNDS) + 1
_BITMAP = ENTITY_BITS // 8


def _rows() -> list[list[int]]:
    return [[0] * COLUMNS for _ in range(CLUSTERS)]


class Counts(msgspec.Struct, forbid_unknown_fields=True):
    """The sums of one arm, or of many; `pairs` has no rows where nothing was mirrored.

    `error_kinds` says what the errors were, `lacks` which features of the challenger's set rows did
    not hold, `dropped` how many requests were not mirrored for want of room, `fallbacks` how many
    the other arm answered, `unclean` how many starts of a node ended without a closing row, and
    were counted again from their log. `entities` is a bitmap of those whose request got a score of
    the arm's own model, or an error of it: `entity_count` reads it.
    """

    clusters: Annotated[list[_Row], msgspec.Meta(min_length=CLUSTERS, max_length=CLUSTERS)] = (
        msgspec.field(default_factory=_rows)
    )
    error_kinds: dict[str, _Count] = {}
    lacks: dict[str, _Count] = {}
    dropped: _Count = 0
    fallbacks: _Count = 0
    time_bins: Annotated[list[int], msgspec.Meta(min_length=_TIME_BINS, max_length=_TIME_BINS)] = (
        msgspec.field(default_factory=lambda: [0] * _TIME_BINS)
    )
    score_bins: Annotated[list[int], msgspec.Meta(min_length=SCORE_BINS, max_length=SCORE_BINS)] = (
        msgspec.field(default_factory=lambda: [0] * SCORE_BINS)
    )
    unclean: _Count = 0
    entities: Annotated[bytes, msgspec.Meta(min_length=_BITMAP, max_length=_BITMAP)] = bytes(
        _BITMAP
    )
    pairs: Annotated[list[_Pair], msgspec.Meta(max_length=CLUSTERS)] = []

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Counts:
        """Return what `plain` wrote.

        Raises:
            ValueError: it is of another form, or counts what cannot be, so nothing may be made of
                it.
        """
        counts = msgspec.convert(plain, cls)
        for row in counts.clusters:
            for part, whole in _PARTS:
                if row[part] > row[whole]:
                    raise ValueError(f"{row[part]} of {row[whole]} are counted (column {part})")
        if len(counts.pairs) not in (0, CLUSTERS):
            raise ValueError(f"pairs are of {len(counts.pairs)} clusters, not of {CLUSTERS}")
        return counts

    def plain(self) -> dict[str, Any]:
        """Return it as JSON's types; the bitmap is text in base 64."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def column(self, column: int) -> int:
        """Return the sum of a column over all clusters."""
        return sum(row[column] for row in self.clusters)


def add(left: Counts, right: Counts) -> Counts:
    """Return the sum of both, which stay as they are."""
    return Counts(
        clusters=_added(left.clusters, right.clusters),
        error_kinds=_joined(left.error_kinds, right.error_kinds),
        lacks=_joined(left.lacks, right.lacks),
        dropped=left.dropped + right.dropped,
        fallbacks=left.fallbacks + right.fallbacks,
        unclean=left.unclean + right.unclean,
        time_bins=[a + b for a, b in zip(left.time_bins, right.time_bins, strict=True)],
        score_bins=[a + b for a, b in zip(left.score_bins, right.score_bins, strict=True)],
        entities=_either(left.entities, right.entities),
        pairs=_added(left.pairs, right.pairs)
        if left.pairs and right.pairs
        else [list(row) for row in left.pairs or right.pairs],
    )


def total(all_counts: Iterable[Counts]) -> Counts:
    """Return the sum of all of them; of none, nothing but zeros."""
    return reduce(add, all_counts, Counts())


def entity_count(counts: Counts) -> float:
    """Return about how many entities were counted (linear counting, Whang et al. 1990).

    Of 1,000 it errs by less than 2 %; above some 15,000 too little is left of the bitmap, and it
    says no more than that there are many.
    """
    zeros = ENTITY_BITS - int.from_bytes(counts.entities, "little").bit_count()
    return ENTITY_BITS * math.log(ENTITY_BITS / max(1, zeros))


def place_of(key: bytes, entity: str) -> tuple[int, int]:
    """Return the cluster and the bit of an entity; `key` is the release's.

    Keyed like its share of traffic, and salted: the clusters of both arms are filled alike.
    """
    state = _keyed(key).copy()  # the key is in it already
    state.update(entity.encode("utf-8", "surrogatepass"))
    number = int.from_bytes(state.digest(), "little")
    return number % CLUSTERS, (number >> 32) % ENTITY_BITS


@lru_cache(maxsize=64)  # releases
def _keyed(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key[:64], person=b"cluster", digest_size=8)


def _added(left: list[list[int]], right: list[list[int]]) -> list[list[int]]:
    return [
        [a + b for a, b in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(left, right, strict=True)
    ]


def _joined(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in left.keys() | right.keys()}


def _either(left: bytes, right: bytes) -> bytes:
    both = int.from_bytes(left, "little") | int.from_bytes(right, "little")
    return both.to_bytes(_BITMAP, "little")
