"""What a use case says of its releases: defaults, what is refused, and what may be switched off."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from math import inf
from typing import Any

import pytest
from pydantic import ValidationError

from include.config.use_case import UseCase
from include.config.use_case_release import Release, ReleaseStep
from include.config.use_case_schema import use_case_schema


def test_every_part_may_be_left_out() -> None:
    release = Release()
    assert [step.share for step in release.steps] == [0, 5, 25]
    step = release.steps[1]
    assert (step.bake, step.requests, step.entities) == (timedelta(minutes=30), 500, 100)
    assert (release.plan, release.thin, release.newer) == ("canary", "replay", "wait")
    assert release.verdict.errors is not None
    assert release.slo.availability == 0.999


def test_a_rule_may_be_written_in_part_and_keeps_the_rest() -> None:
    slow = Release.model_validate({"verdict": {"slow": {"milliseconds": 7}}}).verdict.slow
    assert slow is not None
    assert (slow.milliseconds, slow.margin, slow.limit) == (7, 0.005, 0.05)


def test_a_rule_may_be_switched_off_and_the_schema_says_how() -> None:
    verdict = Release.model_validate({"verdict": {"scores": False}}).verdict
    assert verdict.scores is None
    assert verdict.errors is not None
    field = use_case_schema()["$defs"]["ReleaseVerdict"]["properties"]["scores"]
    assert field["anyOf"][1] == {"const": False, "type": "boolean"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": [{"share": 5}, {"share": 5}]}, "5 percent comes after 5"),
        ({"steps": [{"share": 5}, {"share": 0}]}, "shadow step (share: 0) is the first"),
        ({"steps": [{"share": 100}]}, "less than 100"),
        ({"steps": [{"share": 0.001}]}, "multiple of 0.01"),
        ({"steps": [{"share": 5, "bake": "2d"}]}, "bake (2d) is longer than the deadline (1d)"),
        ({"steps": [{"share": 5, "requests": 0}]}, "greater than or equal to 1"),
        ({"plan": "shadow", "steps": []}, "plan: shadow needs the shadow step"),
        ({"plan": "shadow", "steps": [{"share": 5}]}, "plan: shadow needs the shadow step"),
        ({"verdict": {"error": {}}}, "Extra inputs are not permitted"),
        ({"verdict": {"scores": None}}, "write false to switch it off"),
        ({"verdict": {"errors": {"margin": 2}}}, "less than or equal to 1"),
        ({"slo": {"availability": 1}}, "less than 1"),
        ({"false_rollback": 0}, "greater than or equal to 0.000001"),
        ({"min_nodes": 0}, "greater than or equal to 1"),
        ({"beat": "10s"}, "at least 15s"),
        ({"beat": "2h"}, "at most 1h"),
        ({"resume": "0s"}, "resume (0s) is shorter than beat (3m)"),
        ({"resume": "2000000d"}, "resume is at most 366d"),
        ({"watch": "367d"}, "watch is at most 366d"),
        ({"steps": [{"share": 5, "deadline": "3000000d"}]}, "deadline is at most 366d"),
        ({"steps": [{"share": 5, "bake": "0s", "deadline": "0s"}]}, "could never pass"),
        ({"steps": [{"share": 5, "requests": 10**30}]}, "less than or equal to 1000000000"),
        ({"slo": {"milliseconds": inf}}, "less than or equal to 60000"),
        ({"verdict": {"slow": {"milliseconds": inf}}}, "less than or equal to 60000"),
        ({"verdict": {"scores": {"margin": inf}}}, "less than or equal to 10"),
        ({"min_nodes": 10**9}, "less than or equal to 1000"),
        ({"exclude": [False]}, "true or false is no key: YAML reads NO, on and yes so"),
        ({"exclude": [str(n) for n in range(10_001)]}, "at most 10000 items"),
    ],
)
def test_what_no_release_can_have_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Release.model_validate(values)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("type", "key", "says"),
    [
        ("string", 7, "7 is a number, but loan_id is text; write it in quotes"),
        ("int64", "007", "'007' is no whole number, as loan_id is"),
        ("int64", "x" * 50, "is no whole number"),
        ("int64", " 7", "is no whole number"),
        ("int64", "7", ""),
        ("int64", -7, ""),
        ("string", "007", ""),
    ],
)
def test_only_keys_that_an_entity_can_have_are_excluded(
    type: str, key: int | str, says: str
) -> None:
    with pytest.raises(ValidationError) if says else nullcontext() as caught:
        UseCase.model_validate(
            {
                "name": "loans",
                "history": {"first": "2025-03-05"},
                "entity": {"name": "loan", "key": "loan_id", "type": type},
                "sources": {
                    "rows": {
                        "path": "a.csv",
                        "key": ["loan_id"],
                        "columns": {"loan_id": {"type": type}},
                    }
                },
                "label": {"sql": "SELECT 1", "delay": "1d"},
                "features": {"base": {"sql": "SELECT 1", "columns": {"a": "float64"}}},
                "release": {"exclude": [key]},
            }
        )
    assert caught is None or says in str(caught.value)


def test_a_share_of_a_hundredth_of_a_percent_is_taken() -> None:
    assert [ReleaseStep(share=share).share for share in (0.01, 0.07, 0.29, 99.99)]
