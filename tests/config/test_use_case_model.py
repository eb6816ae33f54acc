"""What a use case says of its model: limits of the fields, and that defaults suffice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from include.config.use_case_model import (
    Decision,
    Fallback,
    Gates,
    Monitoring,
    Split,
    Training,
    Wait,
)


def test_every_part_may_be_left_out() -> None:
    assert Training().split == Split(by="auto", tune=0.2, evaluation=0.2)
    assert (Gates().min_auc, Decision().threshold, Monitoring().psi) == (0.6, 0.5, 0.2)
    assert (Fallback().unknown, Fallback().stale) == ("refuse", "refuse")
    assert Wait().deadline == timedelta(hours=6)


@pytest.mark.parametrize(
    ("model", "values", "says"),
    [
        (Split, {"tune": 1.1}, "less than or equal to 1"),
        (Split, {"by": "entity"}, "'auto', 'time' or 'hash'"),
        (Training, {"max_rows": 99}, "greater than or equal to 100"),
        (Training, {"window": "a year"}, "is no duration"),
        (Training, {"params": {"metric": ["auc"]}}, "Input should be a valid"),
        (Training, {"exclude": ["a b"]}, "should match pattern"),
        (Gates, {"min_auc": -0.1}, "greater than or equal to 0"),
        (Gates, {"max_feature_auc": 0.4}, "greater than or equal to 0.5"),
        (Decision, {"threshold": 2}, "less than or equal to 1"),
        (Fallback, {"stale": "guess"}, "'refuse' or 'score'"),
        (Monitoring, {"psi": 0}, "greater than 0"),
        (Wait, {"dead_line": "1h"}, "Extra inputs are not permitted"),
    ],
)
def test_what_no_model_can_have_is_refused(
    model: type[Any], values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model(**values)
    assert says in str(caught.value)
