"""Windows of a release as nodes report them, drawn by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from include.deployment.release_plan import DAY, PlannedStep, ReleasePlan, Rule
from include.predictions.window_counts import (
    ABOVE,
    CHALLENGER,
    CHAMPION,
    CLUSTERS,
    ENTITY_BITS,
    ERRORS,
    INVALID,
    PAIR_COLUMNS,
    REQUESTS,
    SCORE_SQUARES,
    SCORE_SUM,
    SCORED,
    SHADOW,
    SLOW,
    TIMED,
    Counts,
)
from include.records.nodes import Observation
from include.records.release_reports import Guard, Window
from include.records.release_rows import Release

START = datetime(2026, 3, 5, 10, tzinfo=UTC)
RULES = {
    "errors": Rule(0.001, 0.02),
    "slow": Rule(0.005, 0.05, 50),
    "invalid": Rule(0.001, 0.01),
    "scores": Rule(0.08),
    "decisions": Rule(0.1),
    "parity": Rule(None, 0.01),
    "auc": Rule(0.02),
    "lacks_feature": Rule(None, 0.01),
}


def plan_of(*shares: int, **changes: Any) -> ReleasePlan:
    """Return a plan of steps of 30 minutes, 500 requests, 100 entities and a day."""
    steps = [PlannedStep(share, 1800, 500, 100, DAY) for share in shares]
    return ReleasePlan(**{"kind": "canary", "steps": steps, "metrics": RULES} | changes)


def release_of(plan: ReleasePlan, **changes: Any) -> Release:
    """Return a running release in its first step, which it entered at START."""
    values: dict[str, Any] = {
        "use_case": "shop", "id": "a1", "partition": "2026-03-05", "challenger": 2,
        "challenger_digest": "sha256:2", "bento_digest": None, "signature": None, "champion": 1,
        "opponent_generation": 3, "plan": plan.plain(), "step": 0, "state": "running",
        "paused": False, "suspended": False, "entered_at": START, "started_at": START,
        "ended_at": None, "verdicts": [], "reason": "", "gap_seconds": 0.0,
        "rolled_back_by_itself": False, "revision": 5,
    }  # fmt: skip
    return Release(**values | changes)


def node_of(node: str = "n1", boot: str = "b1", *, living: bool = True) -> Observation:
    """Return the report of a node."""
    return Observation(
        "shop", node, boot, "champion", 1, "sha256:1", "serving", "", 0.0, 4, START, living
    )


def guard_of(reason: str = "NaN") -> Guard:
    """Return the latch of a node."""
    return Guard("shop", "a1", "n1", reason, "b1", START)


def later(minutes: float) -> datetime:
    """Return an instant so many minutes into the step."""
    return START + timedelta(minutes=minutes)


def drawn(
    arm: str,
    *,
    minutes: range = range(40),
    requests: int = 50,
    errors: float = 0.001,
    invalid: float = 0.0,
    slow: float = 0.01,
    mean: float = 0.5,
    pair_difference: float | None = None,
    lacks: dict[str, int] | None = None,
    unclean: int = 0,
    seed: int = 1,
    **window: Any,
) -> Iterator[Window]:
    """Yield the windows of an arm, one a minute; all entities ask equally often."""
    rng = np.random.default_rng((seed, len(arm)))
    first = int(START.timestamp() // 60)
    answering = CHAMPION if arm == CHAMPION else CHALLENGER
    for minute in minutes:
        counts = Counts(lacks=dict(lacks or {}), unclean=unclean)
        counts.pairs = [[0] * PAIR_COLUMNS for _ in range(CLUSTERS)] if arm == SHADOW else []
        bits = 0
        for cluster in rng.integers(0, CLUSTERS, requests):
            row = counts.clusters[cluster]
            wrong, late = rng.random() < invalid, rng.random() < slow
            failed = wrong or rng.random() < errors
            bits |= 1 << int(rng.integers(0, ENTITY_BITS))
            row[REQUESTS] += 1
            row[ERRORS] += failed
            row[INVALID] += wrong
            row[TIMED] += 1
            row[SLOW] += late
            if failed:
                kind = "invalid" if wrong else "time-out"
                counts.error_kinds[kind] = counts.error_kinds.get(kind, 0) + 1
                continue
            score = round(1000 * float(np.clip(rng.normal(mean, 0.2), 0, 1)))
            row[SCORED] += 1
            row[ABOVE] += score >= 500
            row[SCORE_SUM] += score
            row[SCORE_SQUARES] += score**2
            if arm == SHADOW and pair_difference is not None:
                difference = round(1000 * rng.normal(pair_difference, 0.04))
                pair = counts.pairs[cluster]
                pair[0], pair[1] = pair[0] + 1, pair[1] + difference
                pair[2] += difference**2
        counts.entities = bits.to_bytes(ENTITY_BITS // 8, "little")
        values = {"step": 0, "node": "n1", "boot": "b1", "answering": answering} | window
        yield Window("shop", "a1", arm=arm, minute=first + minute, counts=counts.plain(), **values)


def both(**challenger: Any) -> list[Window]:
    """Return the windows of a canary step: a sound champion, and a challenger of this kind."""
    window = {name: challenger[name] for name in ("minutes", "step") if name in challenger}
    return [*drawn(CHAMPION, requests=200, **window), *drawn(CHALLENGER, **challenger)]
