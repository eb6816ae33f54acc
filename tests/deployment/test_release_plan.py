"""The plan of a release: of a file, through a row and back, and whether traffic is enough."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.config.use_case import UseCase
from include.deployment.release_plan import DAY, ReleasePlan, Rule, is_thin
from include.errors import ConfigError


def case(**release: Any) -> UseCase:
    """Return a use case that says this of its releases."""
    return UseCase.model_validate(
        {
            "name": "shop",
            "history": {"first": "2025-03-05"},
            "entity": {"name": "customer", "key": "id"},
            "sources": {
                "rows": {"path": "a.csv", "key": ["id"], "columns": {"id": {"type": "int64"}}}
            },
            "label": {"sql": "SELECT 1", "delay": "1d"},
            "features": {"base": {"sql": "SELECT 1", "columns": {"a": "float64"}}},
            "release": release,
        }
    )


def test_a_plan_has_what_the_file_says_in_whole_basis_points_and_seconds() -> None:
    steps = [{"share": 0}, {"share": 0.29, "bake": "1m", "requests": 7, "deadline": "2h"}]
    plan = ReleasePlan.of(case(steps=steps, exclude=[17, "18"], verdict={"scores": False}))
    assert plan.kind == "canary"
    assert [(step.share, step.mode) for step in plan.steps] == [(0, "shadow"), (29, "canary")]
    assert (plan.steps[1].bake, plan.steps[1].deadline, plan.steps[1].requests) == (60, 7200, 7)
    assert plan.exclude == ["17", "18"]
    assert "scores" not in plan.metrics
    assert plan.metrics["slow"] == Rule(margin=0.005, limit=0.05, milliseconds=50)
    assert plan.slow_us == 50_000
    assert ReleasePlan.of(case(verdict={"slow": False})).slow_us == 80_000


@pytest.mark.parametrize(
    ("release", "first", "kind", "shares"),
    [
        ({}, False, "canary", [0, 500, 2500]),
        ({"steps": []}, False, "direct", []),
        ({"plan": "shadow"}, False, "shadow", [0]),
        ({}, True, "first", []),
    ],
)
def test_a_plan_is_of_a_kind(
    release: dict[str, Any], first: bool, kind: str, shares: list[int]
) -> None:
    plan = ReleasePlan.of(case(**release), first=first)
    assert (plan.kind, [step.share for step in plan.steps]) == (kind, shares)


def test_a_plan_comes_back_from_its_row_also_one_of_a_later_version() -> None:
    plan = ReleasePlan.of(case())
    row = json.loads(json.dumps(plan.plain()))
    assert ReleasePlan.read("a1", row) == plan
    later = row | {"word": "new", "metrics": row["metrics"] | {"new": {"limit": 1, "unit": "s"}}}
    later["steps"][0]["regions"] = ["north"]
    assert ReleasePlan.read("a1", later).steps == plan.steps
    earlier = {"kind": "direct"}
    assert ReleasePlan.read("a1", earlier).beat == 180


def test_a_plan_of_before_pairs_were_a_field_has_a_tenth_as_it_began() -> None:
    row = ReleasePlan.of(case(pairs=12.5)).plain()
    assert ReleasePlan.read("a1", row).pairs == 1250
    del row["pairs"]
    assert ReleasePlan.read("a1", row).pairs == 1000
    assert ReleasePlan.of(case()).pairs == 2500


def test_a_plan_that_cannot_be_read_names_the_release() -> None:
    with pytest.raises(ConfigError, match=r"plan of release a1 cannot be read .*; abort"):
        ReleasePlan.read("a1", {"kind": "sideways"})


def test_a_step_beyond_the_plan_is_none() -> None:
    with pytest.raises(ConfigError, match=r"3 step\(s\) has no step 3"):
        ReleasePlan.of(case()).step(3)


def test_traffic_is_thin_where_any_step_lacks_requests_or_entities() -> None:
    plan = ReleasePlan.of(case())  # 500 requests of 100 entities, the least share is 5 percent
    assert not is_thin(plan, 10_000, 2_000)
    assert is_thin(plan, 9_999, 2_000), "499 requests at 5 percent"
    assert is_thin(plan, 10_000, 1_999), "99 entities at 5 percent"
    assert is_thin(plan, 0, 0)
    shadow = ReleasePlan.of(case(plan="shadow"))
    assert not is_thin(shadow, 500, 100), "all requests are mirrored"


def test_a_longer_step_has_more_requests_but_the_same_entities() -> None:
    plan = ReleasePlan.of(case(steps=[{"share": 5, "deadline": "4d"}]))
    assert plan.steps[0].deadline == 4 * DAY
    assert not is_thin(plan, 2_500, 2_000)
    assert is_thin(plan, 2_500, 1_999)


def test_a_plan_without_steps_needs_no_traffic() -> None:
    plan = ReleasePlan.of(case(steps=[])).decided(0, 0)
    assert not plan.thin


def test_the_decision_on_thin_traffic_is_part_of_the_plan() -> None:
    assert ReleasePlan.of(case()).decided(100, 10).replays
    held = ReleasePlan.of(case(thin="hold")).decided(100, 10)
    assert (held.thin, held.replays) == (True, False)
    assert not ReleasePlan.of(case()).decided(1e6, 1e5).thin


def test_a_plan_says_how_long_outcomes_are_to_come() -> None:
    assert ReleasePlan.of(case()).probation == 86_400.0, "as `label.delay`"
    assert ReleasePlan.read("r", {"kind": "direct"}).probation is None, "one of before"
