"""Judge a release by past requests that both models answered, where too few are to come."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from include.deployment.decision import Decision
from include.deployment.metric_verdicts import judge_metrics
from include.deployment.release_metrics import ArmSums, StepSums
from include.deployment.release_plan import ReleasePlan
from include.deployment.sequential import Floats
from include.predictions.window_counts import (
    ABOVE,
    CLUSTERS,
    COLUMNS,
    DIFFERENCE_SQUARES,
    DIFFERENCE_SUM,
    ERRORS,
    INVALID,
    PAIR_COLUMNS,
    PAIRED,
    REQUESTS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SLOW,
    THOUSANDTHS,
    TIMED,
)

LEAST = 100  # pairs; fewer are no evidence, unless they are of everybody there is
WAYS_OUT = (
    "release it with `steps: []`, or with `thin: hold` and, once it is in its steps, `evergreen "
    "release promote`"
)


class Pair(Protocol):
    """What both models answered of one row; a score is None where the model gave none."""

    @property
    def entity(self) -> str: ...
    @property
    def champion(self) -> float | None: ...
    @property
    def challenger(self) -> float | None: ...
    @property
    def champion_us(self) -> int: ...
    @property
    def challenger_us(self) -> int: ...


def judge_pairs(
    pairs: Sequence[Pair],
    plan: ReleasePlan,
    *,
    threshold: float,
    lacks: Mapping[str, int] | None = None,
    everybody: bool = False,
) -> Decision:
    """Return whether the challenger may be promoted: no step follows, and nothing more comes.

    `threshold` divides the decisions, `lacks` says how many further rows lack which feature of the
    challenger alone, `everybody` that the pairs are of all entities that could ask. The tests are
    those of a step, at the level of one.
    """
    asked, rule = len(pairs) + sum((lacks or {}).values()), plan.metrics.get("lacks_feature")
    if rule is not None and rule.limit is not None:
        for feature, count in sorted((lacks or {}).items()):
            if count > rule.limit * asked:
                reason = f"{count / asked:.1%} of the past requests lack the feature {feature}"
                return Decision("hold", "abort", reason, asks_about=("replay",))
    if not pairs or (len(pairs) < LEAST and not everybody):
        reason = f"{len(pairs)} past requests, fewer than {LEAST}: too little to judge by; "
        return Decision("hold", "abort", reason + WAYS_OUT, asks_about=("replay",))
    is_few = len(pairs) < LEAST
    if is_few and (unanswered := _unanswered(pairs)):
        # No test of so few would see it, and of everybody it is no chance.
        reason = f"it gives no usable score for {unanswered} of {len(pairs)}, whom the champion can"
        return Decision("hold", "abort", reason, asks_about=("replay",))
    sums = _sums(pairs, plan, threshold)
    verdicts = judge_metrics(plan, sums, absolute=False)
    evidence = {**verdicts.evidence, "model time": _times(pairs)}
    if verdicts.failed:
        return Decision("fail", "roll_back", verdicts.failed, evidence)
    reason = f"thin traffic: {len(pairs)} past requests, nothing is worse than its margin"
    if is_few:
        reason += f"; they are all that there is, and show no less than {_shown(evidence)}"
    return Decision("pass", "promote", reason, evidence)


def _unanswered(pairs: Sequence[Pair]) -> int:
    """Return for how many rows the challenger gives no usable score where the champion does."""
    return sum(_is_usable(pair.champion) and not _is_usable(pair.challenger) for pair in pairs)


def _shown(evidence: Mapping[str, Mapping[str, Any]]) -> str:
    """Return in words which worsening so few pairs would have shown; parts of 1 have no unit."""
    return ", ".join(
        f"{name} by {found['would_have_seen']:.2g}{' sd' if name == 'scores' else ''}"
        for name, found in evidence.items()
        if "would_have_seen" in found
    )


def _sums(pairs: Sequence[Pair], plan: ReleasePlan, threshold: float) -> StepSums:
    """Return pairs as the sums of a step; their entities are the clusters."""
    mine, champion = np.zeros((CLUSTERS, COLUMNS)), np.zeros((CLUSTERS, COLUMNS))
    both = np.zeros((CLUSTERS, PAIR_COLUMNS))
    for pair in pairs:
        cluster = zlib.crc32(pair.entity.encode("utf-8", "surrogatepass")) % CLUSTERS
        scores = [
            _counted(arm[cluster], score, micros, plan.slow_us, threshold)
            for arm, score, micros in (
                (mine, pair.challenger, pair.challenger_us),
                (champion, pair.champion, pair.champion_us),
            )
        ]
        if scores[0] is not None and scores[1] is not None:
            difference, row = round((scores[0] - scores[1]) * THOUSANDTHS), both[cluster]
            row[PAIRED] += 1
            row[DIFFERENCE_SUM] += difference
            row[DIFFERENCE_SQUARES] += difference**2
    arms = [ArmSums(arm, np.zeros((1, COLUMNS))) for arm in (mine, champion)]
    return StepSums(arms[0], arms[0], arms[1], arms[1], both)


def _counted(
    row: Floats, score: float | None, micros: int, slow_us: int, threshold: float
) -> float | None:
    """Count an answer, and return its score; None where it is of no use."""
    row[REQUESTS] += 1
    row[TIMED] += 1
    row[SLOW] += micros > slow_us
    if score is None or not _is_usable(score):
        row[ERRORS] += 1
        row[INVALID] += score is not None
        return None
    row[SCORED] += 1
    row[ABOVE] += score >= threshold
    row[SCORE_SUM] += round(score * THOUSANDTHS)
    row[SCORE_SQUARES] += round(score * THOUSANDTHS) ** 2
    return score


def _is_usable(score: float | None) -> bool:
    return score is not None and math.isfinite(score) and 0 <= score <= 1


def _times(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the median time of both models in milliseconds."""
    return {
        "challenger": float(np.median([pair.challenger_us for pair in pairs])) / 1000,
        "champion": float(np.median([pair.champion_us for pair in pairs])) / 1000,
    }
