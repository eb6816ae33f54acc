"""The judgement by past requests: what both models answered of the same rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from include.deployment.decision import Decision
from include.deployment.pair_verdict import judge_pairs
from tests.builders.release_windows import plan_of


class Pair(NamedTuple):
    entity: str
    champion: float | None
    challenger: float | None
    champion_us: int
    challenger_us: int


def judged(
    count: int = 1000,
    *,
    moved: float = 0.0,
    none: float = 0.0,
    invalid: float = 0.0,
    slow: float = 0.0,
    constant: bool = False,
    everybody: bool = False,
) -> Decision:
    """Return the decision on so many pairs, whose challenger behaves so."""
    rng = np.random.default_rng(7)
    pairs = []
    for number in range(count):
        champion = float(np.clip(rng.normal(0.5, 0.2), 0, 1))
        challenger: float | None = float(np.clip(champion + rng.normal(moved, 0.03), 0, 1))
        if constant:
            challenger = 0.5
        if rng.random() < none:
            challenger = None
        elif rng.random() < invalid:
            challenger = float("nan")
        micros = 90_000 if rng.random() < slow else 900
        pairs.append(Pair(f"e{number}", champion, challenger, 800, micros))
    plan = plan_of(500, thin=True)
    return judge_pairs(pairs, plan, threshold=0.5, everybody=everybody)


def test_a_feature_that_past_requests_lack_holds_the_challenger() -> None:
    pairs = [Pair(f"e{number}", 0.5, 0.5, 800, 800) for number in range(990)]
    plan = plan_of(500, thin=True)
    rare = judge_pairs(pairs, plan, threshold=0.5, lacks={"income": 10})
    assert rare.word == "pass"
    found = judge_pairs(pairs, plan, threshold=0.5, lacks={"age": 1, "income": 11})
    assert (found.word, found.action, found.asks) == ("hold", "abort", True)
    assert found.reason == "1.1% of the past requests lack the feature income"


def test_models_that_answer_alike_are_promoted_with_the_evidence() -> None:
    found = judged()
    assert (found.word, found.action) == ("pass", "promote")
    assert found.reason.startswith("thin traffic: 1000 past requests")
    assert found.evidence["model time"] == {"challenger": 0.9, "champion": 0.8}
    assert found.evidence["scores"]["would_have_seen"] < 0.2


@pytest.mark.parametrize(
    ("behaviour", "metric"),
    [
        ({"moved": 0.1}, "scores: moved by"),
        ({"none": 0.05}, "errors: "),
        ({"invalid": 0.05}, "invalid: "),
        ({"slow": 0.05}, "slow: "),
        ({"constant": True}, "scores: moved by"),
    ],
)
def test_a_model_that_answers_worse_is_rolled_back(
    behaviour: dict[str, float], metric: str
) -> None:
    found = judged(**behaviour)  # type: ignore[arg-type]
    assert (found.word, found.action) == ("fail", "roll_back")
    assert metric in found.reason


def test_a_few_failures_are_chance() -> None:
    assert judged(none=0.001).word == "pass"


def test_too_few_past_requests_promote_nobody() -> None:
    found = judged(99)
    assert (found.word, found.action, found.asks) == ("hold", "abort", True)
    assert "99 past requests, fewer than 100" in found.reason
    assert "steps: []" in found.reason, "the ways out are said"
    assert judged(0, everybody=True).reason == judged(0).reason != found.reason


@pytest.mark.parametrize("count", [1, 2, 3, 20, 99])
def test_all_entities_that_there_are_suffice_and_it_is_said_what_they_could_show(
    count: int,
) -> None:
    found = judged(count, everybody=True)
    assert (found.word, found.action) == ("pass", "promote")
    assert found.reason.startswith(f"thin traffic: {count} past requests, nothing is worse")
    seen = found.evidence["scores"]["would_have_seen"]
    assert "they are all that there is, and show no less than errors by 1," in found.reason
    assert f"scores by {seen:.2g} sd" in found.reason
    assert judged(count, everybody=True, none=1.0).reason == (
        f"it gives no usable score for {count} of {count}, whom the champion can"
    )
    assert judged(count, everybody=True, invalid=1.0).action == "abort"


def test_a_shift_is_found_among_a_few_entities_and_many_are_judged_as_ever() -> None:
    assert judged(20, everybody=True, moved=0.3).action == "roll_back"
    assert judged(everybody=True) == judged()
    assert judged(everybody=True, none=0.001).word == "pass"
