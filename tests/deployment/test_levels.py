"""How the error rate is divided: the parts are the whole, and nothing is tested twice for free."""

from __future__ import annotations

import msgspec
import pytest

from include.config.use_case_release import Release
from include.deployment.levels import burn_level, levels, metric_level
from include.deployment.release_plan import ReleasePlan

PLAN = ReleasePlan.of_release(Release())
PLANS = [
    PLAN,
    ReleasePlan.of_release(Release.model_validate({"steps": []})),
    ReleasePlan.of_release(Release.model_validate({"verdict": {"slow": False, "auc": False}})),
    msgspec.structs.replace(PLAN, thin=True, false_rollback=0.2),
]


@pytest.mark.parametrize("plan", PLANS)
def test_the_parts_are_the_whole(plan: ReleasePlan) -> None:
    assert sum(level.level for level in levels(plan)) == pytest.approx(plan.false_rollback)


def test_each_metric_has_its_part_in_each_step_and_limits_alone_while_watched() -> None:
    table = {(level.what, level.step): level.level for level in levels(PLAN)}
    assert table["errors", "5 %"] == table["errors", "shadow"] == metric_level(PLAN, "errors")
    assert ("slow", "watched") in table
    assert ("scores", "watched") not in table
    assert ("lacks_feature", "5 %") not in table, "it holds a step and never fails it"


def test_fewer_steps_leave_more_for_each() -> None:
    shadow = ReleasePlan.of_release(Release.model_validate({"plan": "shadow"}))
    assert metric_level(shadow, "errors") > metric_level(PLAN, "errors")


def test_the_windows_of_the_burn_rate_share_its_part() -> None:
    windows = 4 * 86_400 / 120  # three steps and the watch, of a day each
    assert burn_level(PLAN) * windows == pytest.approx(0.05 * 0.05)
