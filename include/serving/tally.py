"""Count what a node noted of its requests into sums that add.

Plain integers in lists: for the notes of a second, numpy takes twice as long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from include.predictions.window_counts import (
    ABOVE,
    CLUSTERS,
    COLUMNS,
    DECISIONS_DIFFER,
    DIFFERENCE_SQUARES,
    DIFFERENCE_SUM,
    ENTITY_BITS,
    ERRORS,
    INVALID,
    PAIR_COLUMNS,
    PAIRED,
    REQUESTS,
    SCORE_BINS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SLOW,
    THOUSANDTHS,
    TIME_BOUNDS,
    TIMED,
    Counts,
)

INVALID_SCORE = "invalid_score"  # the model answered a number that is no probability
ROW_LACKS_FEATURE = "row_lacks_feature"  # of the challenger's set, and the champion answered
STORE_AWAY = "store_away"  # of the online features
# The time of a batch was over, or too little of it left to ask the challenger: by its size or by a
# model, which the requests of the same minutes tell.
BATCH_LATE = "batch_late"
# Reasons for which no model can be blamed: a store, a disk, a row, a batch, or that there is no
# model.
NOT_THE_MODELS = frozenset(
    {ROW_LACKS_FEATURE, BATCH_LATE, STORE_AWAY, "log_full", "no_model", "starting"}
)
# A challenger's process says which feature a row lacks: it may say anything, and any number of it.
MAX_LACKS, MAX_NAME = 200, 200
OTHERS = "(others)"
_DIGITS = bytes([48, 49]) + bytes(254)  # of the bytes 0 and 1, for `int`
_BIN_OF = [
    min(whole * SCORE_BINS // THOUSANDTHS, SCORE_BINS - 1) for whole in range(THOUSANDTHS + 1)
]
# What is counted of a request: the place of its entity; the score, None where nobody scored it; the
# model's time in us, None where it is not known or, as in a batch, says nothing; whether the score
# is above the threshold; why the arm that it was meant for did not answer; the feature that its row
# lacked.
Answered = tuple[tuple[int, int], float | None, int | None, bool, str | None, str | None]


@dataclass(slots=True)
class Recent:
    """What was counted of an arm in one go, for who looks at the last minutes alone.

    `entities` are the bits of those who asked, `failed` of those whose answer was an error, `late`
    of those whose answer was slow. `invalid` are the errors that are a useless score. `timed` and
    what was slow are of the arm's own answers.
    """

    requests: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0
    entities: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    invalid: int = 0


class Tally:
    """The sums of one window."""

    __slots__ = (
        "dropped",
        "entities",
        "fallbacks",
        "kinds",
        "lacks",
        "pairs",
        "rows",
        "score_bins",
        "time_bins",
    )

    def __init__(self) -> None:
        self.rows = [[0] * COLUMNS for _ in range(CLUSTERS)]
        self.pairs: list[list[int]] = []
        self.time_bins = [0] * (len(TIME_BOUNDS) + 1)
        self.score_bins = [0] * SCORE_BINS
        self.entities = bytearray(ENTITY_BITS)  # a byte each, as bits cost more to set
        self.kinds, self.lacks = Counter[str](), Counter[str]()
        self.dropped = self.fallbacks = 0

    def take(
        self, answers: Sequence[Answered], slow_us: int, recent: Recent, *, own: bool = True
    ) -> None:
        """Count requests, here and in `recent`; a model that took longer than `slow_us` was slow.

        Many at once: what needs no look at each is done for all of them together. `own`: who
        answered is the arm that they were meant for. What another one answers in its place says
        nothing of it: neither whose score that is, nor how long it took.
        """
        rows, time_bins, score_bins = self.rows, self.time_bins, self.score_bins
        scored, unscored, failed, late = list[int](), list[int](), list[int](), list[int]()
        # Nearly all have a score and a time: those are counted in three columns at once.
        complete, timed = [0] * CLUSTERS, 0
        for (cluster, bit), score, micros, above, error, lacks in answers:
            row = rows[cluster]
            if error is not None and self._take_error(row, bit, error, recent):
                failed.append(bit)
            if lacks is not None:
                self._take_lack(lacks[:MAX_NAME])
            # Nearly all are within [0, 1], which nothing that is no number is.
            if score is not None and (0.0 <= score <= 1.0 or isfinite(score)):
                scored.append(bit)
                whole = round(score * THOUSANDTHS) if 0.0 <= score <= 1.0 else _thousandths(score)
                row[SCORE_SUM] += whole
                row[SCORE_SQUARES] += whole * whole
                row[ABOVE] += above
                score_bins[_BIN_OF[whole]] += 1
                if micros is not None:
                    complete[cluster] += 1
                else:
                    row[REQUESTS] += 1
                    row[SCORED] += 1
            else:
                unscored.append(bit)
                row[REQUESTS] += 1
                row[TIMED] += micros is not None
            if micros is not None:
                timed += 1
                time_bins[bisect_left(TIME_BOUNDS, micros)] += 1
                if micros > slow_us:
                    row[SLOW] += 1
                    late.append(bit)
        for row, count in zip(rows, complete, strict=True):
            row[REQUESTS] += count
            row[SCORED] += count
            row[TIMED] += count
        if own:
            recent.timed += timed
            recent.slow += len(late)
            recent.late.update(late)
        recent.requests += len(answers)
        recent.entities.update(scored, unscored)
        # Requests of one entity often come together.
        for bit in {*scored, *failed} if own else set(failed):
            self.entities[bit] = 1

    def _take_lack(self, feature: str) -> None:
        is_full = len(self.lacks) >= MAX_LACKS and feature not in self.lacks
        self.lacks[OTHERS if is_full else feature] += 1

    def _take_error(self, row: list[int], bit: int, error: str, recent: Recent) -> bool:
        """Count an error; tell whether it is the model's."""
        self.kinds[error] += 1
        if error in NOT_THE_MODELS:
            return False
        row[ERRORS] += 1
        row[INVALID] += error == INVALID_SCORE
        recent.errors += 1
        recent.invalid += error == INVALID_SCORE
        recent.failed.add(bit)
        return True

    def take_pair(self, cluster: int, score: float, champions: float, *, differ: bool) -> None:
        """Count a request that both models have scored; `differ`: they decide otherwise."""
        if not self.pairs:
            self.pairs = [[0] * PAIR_COLUMNS for _ in range(CLUSTERS)]
        row, difference = self.pairs[cluster], _thousandths(score) - _thousandths(champions)
        row[PAIRED] += 1
        row[DIFFERENCE_SUM] += difference
        row[DIFFERENCE_SQUARES] += difference * difference
        row[DECISIONS_DIFFER] += differ

    def add(self, other: Tally) -> None:
        """Add the sums of another window, which stays as it is."""
        for ours, theirs in zip(self.rows, other.rows, strict=True):
            ours[:] = [a + b for a, b in zip(ours, theirs, strict=True)]
        if other.pairs:
            self.pairs = self.pairs or [[0] * PAIR_COLUMNS for _ in range(CLUSTERS)]
            for ours, theirs in zip(self.pairs, other.pairs, strict=True):
                ours[:] = [a + b for a, b in zip(ours, theirs, strict=True)]
        for mine, others in (
            (self.time_bins, other.time_bins),
            (self.score_bins, other.score_bins),
        ):
            mine[:] = [a + b for a, b in zip(mine, others, strict=True)]
        self.entities[:] = bytes(a | b for a, b in zip(self.entities, other.entities, strict=True))
        self.kinds.update(other.kinds)
        self.lacks.update(other.lacks)
        self.dropped += other.dropped
        self.fallbacks += other.fallbacks

    def counts(self) -> Counts:
        """Return the sums as the records keep them."""
        bits = int(self.entities[::-1].translate(_DIGITS), 2)
        return Counts(
            clusters=[list(row) for row in self.rows],
            error_kinds=dict(self.kinds),
            lacks=dict(self.lacks),
            dropped=self.dropped,
            fallbacks=self.fallbacks,
            time_bins=list(self.time_bins),
            score_bins=list(self.score_bins),
            entities=bits.to_bytes(ENTITY_BITS // 8, "little"),
            pairs=[list(row) for row in self.pairs],
        )


def _thousandths(score: float) -> int:
    # One beyond [0, 1] is refused as invalid elsewhere; here it could only spoil the sums.
    return min(THOUSANDTHS, max(0, round(score * THOUSANDTHS)))
