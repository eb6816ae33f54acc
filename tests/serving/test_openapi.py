"""What the node tells programs of itself."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from include.config.tokens import Role
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
    served = {NAME: Served(client.use_case)}

    def guarded(free: frozenset[Role]) -> set[str]:
        paths = openapi.document(served, free)["paths"]
        return {
            path for path, methods in paths.items() for way in methods.values() if "security" in way
        }

    always = {f"/v1/{NAME}/rollback", f"/v1/{NAME}/reload"}
    assert guarded(frozenset({"predict", "read"})) == always
    asked = {f"/v1/{NAME}/predict", f"/v1/{NAME}/batch"}
    read = {"/health", "/metrics", f"/v1/{NAME}/model"}
    assert guarded(frozenset()) == always | asked | read


def test_each_route_is_described_with_the_role_that_it_needs(client: Client) -> None:
    client.serve()
    paths = openapi.document(client.app.table.served)["paths"]
    described = {
        (method.upper(), path): way.get("x-role")
        for path, methods in paths.items()
        for method, way in methods.items()
    }
    pages = ("/docs", "/docs/try", "/docs/assets/{name}", "/openapi.json", "/releases")
    served = {
        (route.method, route.path.format(use_case=NAME, name="")): route.role
        for route in client.app.routes
        if route.path not in pages
    }
    assert described == served | {("POST", f"/v1/{NAME}/predict"): "predict"}


def test_the_document_is_valid_and_so_are_its_examples(client: Client) -> None:
    client.desk.publish({42: (NOW, ROW)})
    client.serve(online=Online(client.desk.settings.home / "online" / f"{NAME}.db"))
    document = openapi.document(client.app.table.served)
    OpenAPIV31SpecValidator(document).validate()
    for route in ("predict", "batch"):
        content = document["paths"][f"/v1/{NAME}/{route}"]["post"]["requestBody"]["content"]
        shown = content["application/json"]
        for example in shown["examples"].values():
            Draft202012Validator(shown["schema"]).validate(example["value"])
            answer = client.ask("POST", f"/v1/{NAME}/{route}", json=example["value"])
            assert answer.status_code == 200
            assert "error" not in answer.text


def test_the_answer_of_a_batch_is_as_it_is_described(client: Client) -> None:
    client.serve()
    rows = [{"features": ROW}, {"features": {}}]
    answer = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()
    document = openapi.document(client.app.table.served)
    content = document["paths"][f"/v1/{NAME}/batch"]["post"]["responses"]["200"]["content"]
    schema = content["application/json"]["schema"] | {"components": document["components"]}
    Draft202012Validator(schema).validate(answer)
    described = schema["properties"]["results"]["items"]["oneOf"][0]["properties"]
    assert list(answer["results"][0]) == list(described)


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
