"""The steps that a run takes for a partition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.config.settings import Settings
from include.errors import ConfigError, EvergreenError
from include.pipeline import runner
from include.pipeline.execution import Execution, load_stage, outcome_of
from include.pipeline.stage import Input
from tests.pipeline.probe import KEY, Probe, go, records


def test_a_partition_that_nobody_asked_for_is_refused(home: Settings, stage: Probe) -> None:
    with pytest.raises(ConfigError, match="not recorded"):
        runner.run("validate_data", "shop", KEY, settings=home)


def test_a_stage_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="'train' is no stage; stages are ingest_data, "):
        load_stage("train")


def test_without_a_lease_a_stage_is_only_asked(home: Settings, stage: Probe) -> None:
    go(home)
    context = Execution.begin("validate_data", "shop", settings=home).context(KEY)
    assert stage.inputs(context) == [Input("shop/raw/orders", KEY, "sha256:a")]
    with pytest.raises(EvergreenError, match="nothing is written without a lease"):
        stage.compute(context)


def test_a_record_answers_until_an_input_the_state_or_the_stage_says_no(
    home: Settings, stage: Probe
) -> None:
    go(home)
    run = Execution.begin("validate_data", "shop", settings=home)
    prepared = run.prepare(run.context(KEY))
    assert list(run.find_answers([prepared])) == [KEY]
    stage.source = "sha256:b"
    assert run.find_answers([run.prepare(run.context(KEY))]) == {}
    for changed in (
        replace(run.stage, memoised=False),
        replace(run.stage, still_valid=lambda pairs: set()),
    ):
        assert replace(run, stage=changed).find_answers([prepared]) == {}


def test_a_report_says_in_short_what_an_outcome_was(home: Settings, stage: Probe) -> None:
    go(home)
    run = Execution.begin("validate_data", "shop", settings=home)
    result = records(home).results.get("shop", KEY, "validate_data")
    assert result is not None
    report = run.report(KEY, outcome_of(result), reused=True, seconds=0.12345)
    assert report.summary() == {
        "stage": "validate_data",
        "use_case": "shop",
        "key": KEY,
        "state": "done",
        "digest": result.digest,
        "reason": "",
        "reused": True,
        "seconds": 0.123,
    }
    assert report.outputs == {"rows": 1}
