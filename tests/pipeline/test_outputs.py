"""Outputs of stages as structs: recorded as they are read, and old records are read too."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from include.errors import ArtefactError
from include.pipeline.outputs import DeploymentOutputs, FeatureOutputs, Outputs, PackageOutputs

VIEW = {"table": "shop/features/orders@1", "version": "1", "rows": 3, "digest": "sha256:a"}
STRUCTS = Outputs.__subclasses__()


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
