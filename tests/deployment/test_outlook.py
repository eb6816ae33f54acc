"""What a plan comes to at the traffic that there is."""

from __future__ import annotations

import pytest

from include.config.use_case_release import Release
from include.deployment.outlook import outlook
from include.deployment.release_plan import DAY, ReleasePlan, is_thin

PLAN = ReleasePlan.of_release(Release())


def test_a_step_takes_as_long_as_the_scarcest_of_what_it_needs() -> None:
    shadow, five, quarter = outlook(PLAN, 40_000, 20_000)
    assert shadow.seconds == 1800, "its bake"
    assert five.seconds == pytest.approx(500 / (40_000 * 0.05) * DAY), "its requests"
    assert quarter.seconds == pytest.approx(500 / (40_000 * 0.25) * DAY)
    assert (five.name, five.requests) == ("5 %", 500)
    few = outlook(PLAN, 40_000, 2_500)[1]
    assert few.seconds == pytest.approx(100 / (2_500 * 0.05) * DAY), "its entities"


def test_a_step_that_its_deadline_ends_takes_no_time_that_could_be_told() -> None:
    for requests, entities in ((9_000, 5_000), (40_000, 1_000), (0, 0)):
        assert outlook(PLAN, requests, entities)[1].seconds is None
        assert is_thin(PLAN, requests, entities)


def test_more_requests_see_less() -> None:
    few, many = (outlook(PLAN, requests, 40_000)[0].seen for requests in (30_000, 3_000_000))
    assert 0.005 < few["errors"] < 0.05
    assert many["errors"] < few["errors"]
    assert many["slow"] < few["slow"]


def test_a_metric_that_is_switched_off_sees_nothing() -> None:
    plan = ReleasePlan.of_release(Release.model_validate({"verdict": {"slow": False}}))
    assert set(outlook(plan, 40_000, 20_000)[0].seen) == {"errors"}
