"""What the node tells programs of itself: the models in service and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from include.config.tokens import Role
from include.deployment.description import Description
from include.serving.batch import MAX_ROWS
from include.serving.snapshot import Loaded, Served

_TYPES = {"int64": "integer", "float64": "number", "string": "string", "bool": "boolean"}
# What predict answers.
MEANING_BY_STATUS = {
    "200": "the score and the decision, on record in the prediction log",
    "400": "no valid JSON",
    "401": "a token is needed and is missing or unknown",
    "403": "the token has not the role",
    "404": "no features are known of the entity (fallback.unknown: refuse), or there is "
    "no such use case",
    "409": "the entity's features are older than their ttl (fallback.stale: refuse)",
    "413": "the body is larger than 1 MB",
    "415": "the media type is not application/json",
    "422": "a field is wrong; the error names it",
    "503": "there is no model yet, or its features, their store or the prediction log cannot be "
    "reached; retry-after says when to ask again",
    "504": "no answer within the time of a request",
}
_OF_BATCH = ("200", "400", "401", "403", "404", "413", "415", "422", "503")
_EXAMPLES: dict[str, object] = {"int64": 1, "float64": 1.5, "string": "text", "bool": True}


def describe_served(served: Served) -> dict[str, Any]:
    """Return what serves a use case: its models, decision, fallbacks and problems."""
    return {
        "use_case": served.use_case.name,
        "epoch": served.epoch,
        "generation": served.generation,
        "champion": _model(served.champion),
        "previous": _model(served.previous),
        "decision": msgspec.to_builtins(served.use_case.decision),
        "fallback": msgspec.to_builtins(served.use_case.fallback),
        "problems": list(served.problems),
        **({} if served.release is None else {"release": served.release.describe()}),
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


def document(
    served_by_name: Mapping[str, Served], free: frozenset[Role] = frozenset()
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the routes that are served.

    Whoever asks needs no token for the roles in `free`.
    """

    def operation(summary: str, role: Role | None, tag: str, **more: Any) -> dict[str, Any]:
        responses = {"200": {"description": "OK"}} | more.pop("responses", {})
        asked: dict[str, Any] = {"summary": summary, "tags": [tag], "responses": responses, **more}
        if role is not None:
            asked["x-role"] = role
            if role not in free:
                asked["security"] = [{"token": []}]
                for status in ("401", "403"):
                    responses.setdefault(status, _refused(MEANING_BY_STATUS[status]))
        return asked

    node = {
        "/live": ("Whether the process answers", None),
        "/ready": ("Whether requests should be sent here", None),
        "/health": ("Whether the node lives, and what it serves", "read"),
        "/metrics": ("The node's numbers, for Prometheus", "read"),
    }
    paths: dict[str, Any] = {
        path: {"get": operation(summary, cast(Role | None, role), "node")}
        for path, (summary, role) in node.items()
    }
    for name, served in sorted(served_by_name.items()):
        use_case = served.use_case
        one, title = _row(served), use_case.title or name
        many = {
            "type": "object",
            "additionalProperties": False,
            "required": ["rows"],
            "properties": {
                "rows": {"type": "array", "minItems": 1, "maxItems": MAX_ROWS, "items": one}
            },
        }
        paths |= {
            f"/v1/{name}/predict": {
                "post": operation(
                    f"Score one {use_case.entity.name}: {title}",
                    "predict",
                    name,
                    parameters=[_REQUEST_ID, _EXPLAIN],
                    requestBody=_body(one, examples(served)),
                    responses=_responses(MEANING_BY_STATUS, _ANSWER),
                )
            },
            f"/v1/{name}/batch": {
                "post": operation(
                    f"Score up to {MAX_ROWS} rows, one result or error a row, in order",
                    "predict",
                    name,
                    parameters=[_REQUEST_ID],
                    requestBody=_body(
                        many, {"rows": {"value": {"rows": [example_request(use_case)] * 2}}}
                    ),
                    responses=_responses(_OF_BATCH, _BATCH_ANSWER),
                )
            },
            f"/ready/{name}": {"get": operation("Whether a model answers", None, name)},
            f"/v1/{name}/model": {"get": operation("The model in service", "read", name)},
            f"/v1/{name}/rollback": {
                "post": operation(
                    "Serve the previous model again, and hold the present one",
                    "operate",
                    name,
                    requestBody=_body(_ROLLBACK, {}),
                )
            },
            f"/v1/{name}/reload": {
                "post": operation("Read the records again now", "operate", name)
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Evergreen serving node",
            "version": "1",
            "description": "Send a token as `Authorization: Bearer ...` where one is needed.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _body(schema: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema} | ({"examples": shown} if shown else {})
    return {"required": True, "content": {"application/json": content}}


def _refused(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _responses(statuses: Iterable[str], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is answered by status; 200 has the schema of the answer."""
    found = {status: _refused(MEANING_BY_STATUS[status]) for status in statuses}
    found["200"]["content"] = {"application/json": {"schema": answer}}
    return found


def _row(served: Served) -> dict[str, Any]:
    """Return the schema of a request for one row, with the features and types of the use case."""
    use_case = served.use_case
    return {
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


def examples(served: Served) -> dict[str, Any]:
    """Return requests that a person can begin with: by the entity, and by the row."""
    types = served.feature_types
    row = {name: _EXAMPLES[types[name]] for name in _required_features(served) if name in types}
    return {
        "entity": {"summary": "by its key", "value": example_request(served.use_case)},
        "row": {"summary": "by its row; each value may be null", "value": {"features": row}},
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
        "claim": {
            "type": "string",
            "description": "who asks, by its own word; kept beside the token",
        },
        "request_id": {"type": "string", "description": "two orders with one id are one"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
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
    "required": ["request_id", "score", "decision", "model_version"],
    "properties": {
        "request_id": {"type": "string"},
        "use_case": {"type": "string"},
        "entity": {"type": ["integer", "string", "null"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "decision": {"type": "string"},
        "model_version": {"type": "integer"},
        "model_digest": {"type": "string"},
        "arm": {"type": "string", "enum": ["champion", "challenger", "fallback"]},
        "as_of": {"type": ["string", "null"], "format": "date-time"},
        "age_seconds": {"type": ["number", "null"]},
        "flags": {
            "type": "array",
            "items": {
                "type": "string",
                "enum": ["degraded", "fallback", "stale", "unknown", "unlogged"],
            },
        },
    },
}
_BATCH_ANSWER = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "use_case": {"type": "string"},
        "results": {
            "type": "array",
            "items": {"oneOf": [_ANSWER, {"$ref": "#/components/schemas/Error"}]},
        },
    },
}
_REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "required": False,
    "description": "Names the request in the answer and in the log: 1 to 64 letters, digits and "
    "._-; a retry has the id of the first try. Left out: the node makes one.",
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,64}$"},
}
_EXPLAIN = {
    "name": "x-evergreen-explain",
    "in": "header",
    "required": False,
    "description": "1: the answer has headers that tell the arm that answered (x-evergreen-arm), "
    "the one that the request was meant for (x-evergreen-assigned), and while a release is under "
    "way, which one and its step (x-evergreen-release).",
    "schema": {"type": "string", "enum": ["1"]},
}
