"""What the node tells programs of itself: the models in service and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from include.deployment.description import Description
from include.serving.snapshot import Loaded, Served

_TYPES = {"int64": "integer", "float64": "number", "string": "string", "bool": "boolean"}
# What predict answers.
MEANING_BY_STATUS = {
    "200": "the score and the decision, on record in the prediction log",
    "400": "no valid JSON",
    "404": "no features are known of the entity (fallback.unknown: refuse), or there is "
    "no such use case",
    "409": "the entity's features are older than their ttl (fallback.stale: refuse)",
    "413": "the body is larger than 1 MB",
    "415": "the media type is not application/json",
    "422": "a field is wrong; the error names it",
    "503": "there is no model yet, or its features or the prediction log cannot be reached",
}


def describe_served(served: Served) -> dict[str, Any]:
    """Return what serves a use case: its models, decision, fallbacks and problems."""
    return {
        "use_case": served.use_case.name,
        "generation": served.generation,
        "champion": _model(served.champion),
        "previous": _model(served.previous),
        "decision": msgspec.to_builtins(served.use_case.decision),
        "fallback": msgspec.to_builtins(served.use_case.fallback),
        "problems": list(served.problems),
    }


def _model(model: Loaded | None) -> dict[str, Any] | None:
    if model is None:
        return None
    scorer = model.scorer or model.remote
    return {
        "version": model.version,
        "digest": model.digest,
        "partition": model.partition,
        "feature_set": model.feature_set,
        "features": scorer.features if scorer else [],
        "in_process": model.scorer is not None,
    }


def document(served_by_name: Mapping[str, Served]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the routes that are served."""
    paths = {
        "/health": {"get": _operation("Whether the node lives, and what it serves")},
        "/metrics": {"get": _operation("The node's numbers, for Prometheus")},
    }
    for name, served in sorted(served_by_name.items()):
        rollback = _guarded("Serve the previous model again, and hold the present one")
        rollback["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ROLLBACK}},
        }
        paths |= {
            f"/v1/{name}/predict": {"post": _predict(served)},
            f"/v1/{name}/model": {"get": _operation("The model in service")},
            f"/v1/{name}/rollback": {"post": rollback},
            f"/v1/{name}/reload": {"post": _guarded("Read the records again now")},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen serving node", "version": "1"},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _operation(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "OK"}}}


def _guarded(summary: str) -> dict[str, Any]:
    """Return an operation that needs the node's token."""
    operation = _operation(summary)
    operation["security"] = [{"token": []}]
    operation["responses"]["401"] = {"description": "the token is missing or wrong"}
    return operation


def _predict(served: Served) -> dict[str, Any]:
    """Return the operation of predict, with the features and types of the use case."""
    use_case = served.use_case
    body = {
        "type": "object",
        "additionalProperties": False,
        # Beside an entity, a part of the row will do: the rest is read from the online store.
        "anyOf": [
            {"required": ["entity"]},
            {
                "required": ["features"],
                "properties": {"features": {"required": _required_features(served)}},
            },
        ],
        "properties": {
            "entity": {"type": _TYPES[use_case.entity.type], "description": use_case.entity.key},
            "features": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    name: {"type": [_TYPES[kind], "null"]}
                    for name, kind in served.feature_types.items()
                },
            },
        },
    }
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {
        status: {"description": text} | ({} if status == "200" else {"content": error})
        for status, text in MEANING_BY_STATUS.items()
    }
    responses["200"]["content"] = {"application/json": {"schema": _ANSWER}}
    return {
        "summary": f"Score one {use_case.entity.name}: {use_case.title or use_case.name}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "example": example_request(use_case)}},
        },
        "responses": responses,
    }


def _required_features(served: Served) -> list[str]:
    """Return what a row must hold: what the champion reads, or what the next one will."""
    scorer = (served.champion.scorer or served.champion.remote) if served.champion else None
    return scorer.features if scorer else served.use_case.trained


def example_request(use_case: Description) -> dict[str, Any]:
    """Return the body of a request that asks for one entity."""
    return {"entity": 42 if use_case.entity.type == "int64" else "42"}


_ROLLBACK = {
    "type": "object",
    "required": ["reason"],
    "anyOf": [{"required": ["version"]}, {"required": ["generation"]}],
    "properties": {
        "reason": {"type": "string"},
        "version": {"type": "integer", "description": "the version that is taken back"},
        "generation": {"type": "integer", "description": "the generation that is taken back"},
        "actor": {"type": "string"},
        "request_id": {"type": "string", "description": "two orders with one id are one"},
    },
}
_ERROR = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": "string"},
                "flags": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
}
# The fields of predict.PredictionAnswer; a test compares them.
_ANSWER = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "use_case": {"type": "string"},
        "entity": {"type": ["integer", "string", "null"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "decision": {"type": "string"},
        "model_version": {"type": "integer"},
        "model_digest": {"type": "string"},
        "arm": {"type": "string", "enum": ["champion", "fallback"]},
        "as_of": {"type": ["string", "null"], "format": "date-time"},
        "age_seconds": {"type": ["number", "null"]},
        "flags": {
            "type": "array",
            "items": {"type": "string", "enum": ["fallback", "stale", "unknown", "unlogged"]},
        },
    },
}
