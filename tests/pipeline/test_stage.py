"""What a stage is given: its context, with what is recorded and what is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.config.settings import Settings
from include.errors import MissingPartition, SourceError
from include.pipeline.execution import Execution
from include.pipeline.stage import Input, StageContext
from tests.pipeline.probe import KEY, Probe, go, records


def test_what_is_missing_is_named_with_the_command_that_fills_it(
    home: Settings, stage: Probe
) -> None:
    def inputs(context: StageContext) -> list[Input]:
        context.need("ingest_data", ["2026-02-27", "2026-02-28"])
        return []

    stage.STAGE = replace(stage.STAGE, inputs=inputs)
    with pytest.raises(
        MissingPartition, match=r"evergreen load-history shop --from 2026-02-27 --to 2026-02-28"
    ) as caught:
        go(home)
    assert caught.value.keys == ("2026-02-27", "2026-02-28")


def test_results_of_a_range_are_read_from_what_was_loaded_before(
    home: Settings, stage: Probe
) -> None:
    go(home)
    result = records(home).results.get("shop", KEY, "validate_data")
    assert result is not None
    later = replace(result, key="2026-03-02", digest="sha256:loaded")
    context = Execution.begin("validate_data", "shop", settings=home).context(
        KEY, preloaded={("validate_data", later.key): later}
    )
    assert context.need("validate_data", [later.key]) == [later]
    assert context.result("validate_data", later.key) == later
    assert context.result("validate_data") is None, "all that there is was loaded"
    assert context.result("train_model") is None, "of other stages nothing was, so they are read"


def test_a_reason_on_record_is_told_of_what_is_missing(home: Settings, stage: Probe) -> None:
    stage.error = SourceError("the file is cut off")
    with pytest.raises(SourceError):
        go(home)
    context = Execution.begin("validate_data", "shop", settings=home).context(KEY)
    with pytest.raises(MissingPartition, match=rf"{KEY} \(failed: the file is cut off\)"):
        context.need("validate_data", [KEY])
