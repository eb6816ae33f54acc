"""What the node tells programs of itself."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from include.serving import openapi
from include.serving.predict import PredictionAnswer
from include.serving.snapshot import Online, Served
from tests.builders.application import Client
from tests.builders.serving import NAME, NOW, ROW


def test_every_route_that_the_document_names_is_served(client: Client) -> None:
    client.serve()
    document = openapi.document(client.app.table.served)
    for path, methods in document["paths"].items():
        for method in methods:
            answer = client.ask(method.upper(), path, json={})
            assert answer.status_code not in (404, 405), path


def test_what_changes_state_names_its_security(client: Client) -> None:
    paths = openapi.document({NAME: Served(client.use_case)})["paths"]
    guarded = [
        path for path, methods in paths.items() for way in methods.values() if "security" in way
    ]
    assert guarded == [f"/v1/{NAME}/rollback", f"/v1/{NAME}/reload"]


@pytest.mark.parametrize(
    "body",
    [
        {"entity": 1},
        {"features": ROW},
        {"features": dict.fromkeys(ROW)},
        {"entity": 1, "features": {"income": 2.5}},
        {"entity": 1, "features": ROW},
        {},
        {"entity": "1"},
        {"features": {"income": 2.5}},
        {"features": {**ROW, "age": 3}},
        {"features": {**ROW, "jobs": "two"}},
        {"entity": 1, "more": 2},
    ],
)
def test_a_request_is_valid_by_the_document_where_the_node_takes_it(
    client: Client, body: dict[str, Any]
) -> None:
    client.desk.publish({1: (NOW, ROW)})
    client.serve(online=Online(client.desk.settings.home / "online" / f"{NAME}.db"))
    operation = openapi.document(client.app.table.served)["paths"][f"/v1/{NAME}/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    valid = Draft202012Validator(schema).is_valid(body)
    assert client.predict(**body).status_code == (200 if valid else 422)


def test_the_answer_has_the_fields_that_are_described(client: Client) -> None:
    client.serve()
    answer = client.predict(features=ROW).json()
    operation = openapi.document(client.app.table.served)["paths"][f"/v1/{NAME}/predict"]["post"]
    described = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert list(answer) == list(described) == list(PredictionAnswer.__struct_fields__)


@pytest.mark.parametrize(("model", "version"), [(True, 1), (False, None)])
def test_a_use_case_is_described_with_and_without_a_model(
    client: Client, model: bool, version: int | None
) -> None:
    loaded = client.serve() if model else None
    described = openapi.describe_served(Served(client.use_case, champion=loaded, generation=3))
    assert (described["use_case"], described["generation"]) == (NAME, 3)
    assert (described["champion"] or {}).get("version") == version
    assert described["previous"] is None
    assert described["decision"]["threshold"] == 0.5
