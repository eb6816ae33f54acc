"""Outputs of stages as structs: recorded as they are read, and old records are read too."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from include.errors import ArtefactError
from include.pipeline import memo
from include.pipeline.drift_outputs import DriftOutputs
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.feature_outputs import FeatureOutputs
from include.pipeline.flow import ENTRY
from include.pipeline.flow import STAGES as STAGE_NAMES
from include.pipeline.ingest_outputs import IngestOutputs
from include.pipeline.outputs import Outputs
from include.pipeline.release_outputs import DeploymentOutputs, PackageOutputs
from include.pipeline.training_outputs import Manifest, TrainingOutputs
from include.pipeline.validation_outputs import ValidationOutputs

VIEW = {"table": "shop/features/orders@1", "version": "1", "rows": 3, "digest": "sha256:a"}
STAGES: dict[str, type[Outputs]] = {
    "ingest_data": IngestOutputs,
    "validate_data": ValidationOutputs,
    "materialize_features": FeatureOutputs,
    "train_model": TrainingOutputs,
    "evaluate_model": EvaluationOutputs,
    "package_model": PackageOutputs,
    "deploy_model": DeploymentOutputs,
    "check_drift": DriftOutputs,
}
STRUCTS = [*STAGES.values(), Manifest]


def result(**outputs: Any) -> SimpleNamespace:
    return SimpleNamespace(outputs=outputs)


def test_what_was_not_recorded_is_left_out_again() -> None:
    assert PackageOutputs.of(result()).bento_tag is UNSET
    assert PackageOutputs.of(result()).plain() == {}
    deployed = DeploymentOutputs.of(result(champion=None, generation=3))
    assert deployed.champion is None
    assert deployed.plain() == {"champion": None, "generation": 3}


def test_tables_come_back_as_they_were_recorded() -> None:
    recorded = {"feature_sets": {"fs1": {"orders": VIEW}}, "current": "fs1"}
    outputs = FeatureOutputs.of(result(**recorded))
    assert outputs.feature_sets["fs1"]["orders"].rows == 3
    assert outputs.plain() == recorded
    assert json.loads(json.dumps(outputs.plain())) == recorded


def test_fields_of_a_newer_version_are_passed_over() -> None:
    assert PackageOutputs.of(result(bento_tag="shop:1", signature="x")).bento_tag == "shop:1"


def test_another_form_is_refused_with_the_field_and_the_remedy() -> None:
    with pytest.raises(ArtefactError, match=r"none of FeatureOutputs .*rows.*run the stage again"):
        FeatureOutputs.of(result(feature_sets={"fs1": {"orders": {**VIEW, "rows": "three"}}}))


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_struct_is_frozen(struct: type[Outputs]) -> None:
    assert struct.__struct_config__.frozen
    assert issubclass(struct, msgspec.Struct)


def test_every_stage_has_a_struct() -> None:
    assert tuple(STAGES) == STAGE_NAMES


def test_what_one_stage_leaves_recomputes_no_other_that_does_not_read_it() -> None:
    """A field more in a module of outputs changes the memo keys of whoever imports it alone."""
    for stage in ("ingest_data", "materialize_features"):
        reached = {path.stem for path, _ in memo._closure(ENTRY[stage])}
        assert "outputs" in reached
        assert not reached & {"training_outputs", "evaluation_outputs", "drift_outputs"}
