"""The one table of stages, and the order that is derived from it."""

from __future__ import annotations

import pytest

from include.pipeline import flow


def test_each_stage_starts_from_an_asset_that_an_earlier_one_gives() -> None:
    given: list[str] = []
    for step in flow.FLOW:
        assert step.takes is None or step.takes in given, f"{step.name} waits for a later stage"
        given.append(step.gives)
    assert len(set(given)) == len(flow.FLOW)
    assert [step.name for step in flow.FLOW if step.takes is None] == ["ingest_data"]


def test_the_goal_of_a_target_is_its_last_stage() -> None:
    assert flow.GOAL == {
        "data": "materialize_features",
        "judged": "evaluate_model",
        "deployed": "deploy_model",
    }
    assert flow.DATA_STAGES == ("ingest_data", "validate_data", "materialize_features")
    assert (*flow.DATA_STAGES, "train_model", "evaluate_model") == flow.UP_TO_JUDGED
    assert flow.RELEASING == ("package_model", "deploy_model")


@pytest.mark.parametrize("stage", flow.STAGES)
def test_no_stage_is_upstream_of_itself(stage: str) -> None:
    assert stage not in flow.upstream(stage), "a wait for itself would never end"


def test_what_is_beside_the_chain_follows_its_stage() -> None:
    assert flow.BESIDE == {"check_drift": "evaluate_model"}
    assert flow.upstream("check_drift") == flow.UP_TO_JUDGED
    assert flow.upstream("evaluate_model") == flow.UP_TO_JUDGED[:-1]
    assert flow.upstream("ingest_data") == ()


def test_an_asset_has_one_address() -> None:
    assert flow.asset_uri("shop", "raw") == "evergreen://shop/raw"
