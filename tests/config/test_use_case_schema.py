"""The schema of use case files: fields say what they are, defaults are what a file may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from include.config import use_case, use_case_model
from include.config.use_case_schema import use_case_schema


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field of the schema, by the names of its part and its own."""
    schema = use_case_schema()
    for part, spec in {"UseCase": schema, **schema["$defs"]}.items():
        for name, field in spec["properties"].items():
            yield f"{part}.{name}", field


def test_every_field_has_a_description_of_one_line() -> None:
    described = {name: field.get("description", "") for name, field in fields()}
    assert len(described) > 90, "all parts are looked at"
    assert [name for name, text in described.items() if len(text) < 20] == []
    assert [name for name, text in described.items() if "\n" in text or text[-1] != "."] == []


def test_an_optional_field_says_what_leaving_it_out_means() -> None:
    exempt = {"Label.column", "Source.sql", "Source.simulator", "Source.valid_from", "Source.path"}
    silent = [
        name
        for name, field in fields()
        if field.get("default", "") is None
        and "Left out" not in field["description"]
        and name not in exempt  # of these the field beside them says when they are needed
    ]
    assert silent == []


@pytest.mark.parametrize("part", ["UseCase", "Label", "View", "Source", "Wait"])
def test_a_default_of_the_schema_may_be_written_in_a_file(part: str) -> None:
    model = getattr(use_case_model if part == "Wait" else use_case, part)
    schema = use_case_schema()
    properties = (schema if part == "UseCase" else schema["$defs"][part])["properties"]
    for name, field in properties.items():
        if "default" in field:
            spec = model.model_fields[name]
            kind = TypeAdapter[Any](Annotated[spec.annotation, name, *spec.metadata])
            read = kind.validate_python(field["default"])
            assert read == spec.get_default(call_default_factory=True), name


def test_durations_are_written_as_files_have_them() -> None:
    defaults = {name: field.get("default") for name, field in fields()}
    assert defaults["View.ttl"] == "5w"
    assert defaults["Wait.transit"] == "10m"
    assert defaults["UseCase.cut_off"] == "0s"


def test_what_only_the_loader_sets_is_no_field_of_a_file() -> None:
    assert "folder" not in use_case_schema()["properties"]
