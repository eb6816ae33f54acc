"""What the node says of itself: the model in service, the OpenAPI document, a page for people
without any script.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from include.config.use_case import UseCase
from include.serving.snapshot import Loaded, Served

SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)
_TYPES = {"int64": "integer", "float64": "number", "string": "string", "bool": "boolean"}
_STYLE = """
body { font:16px/1.5 system-ui,sans-serif; max-width:60rem; margin:2rem auto; padding:0 1rem;
  color:#1d2b24 }
h1,h2 { color:#14532d }
code,pre { font:14px/1.45 ui-monospace,monospace; background:#f1f5f2; border-radius:4px }
code { padding:.1em .3em }
pre { padding:.8rem; overflow-x:auto }
table { border-collapse:collapse; width:100% }
td,th { border-bottom:1px solid #d6e0d9; padding:.3rem .6rem; text-align:left; vertical-align:top }
.m { font-weight:600 }
"""
_STATUS = {
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


def describe(served: Served) -> dict[str, Any]:
    """Return what is served for a use case."""
    return {
        "use_case": served.use_case.name,
        "generation": served.generation,
        "champion": _model(served.champion),
        "previous": _model(served.previous),
        "decision": served.use_case.decision.model_dump(),
        "fallback": served.use_case.fallback.model_dump(),
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


def openapi(state: Mapping[str, Served]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the routes that are served."""
    paths: dict[str, Any] = {
        "/health": {"get": _operation("Whether the node lives, and what it serves")},
        "/metrics": {"get": _operation("Counters in Prometheus' text format")},
    }
    for name, served in sorted(state.items()):
        paths[f"/v1/{name}/predict"] = {"post": _predict(served)}
        paths[f"/v1/{name}/model"] = {"get": _operation("The model in service")}
        for route, text in (
            ("rollback", "Serve the previous model again, and hold the present one"),
            ("reload", "Look again now"),
        ):
            operation = _operation(text)
            operation["security"] = [{"token": []}]
            operation["responses"]["401"] = {"description": "the token is missing or wrong"}
            if route == "rollback":
                schema = {
                    "type": "object",
                    "required": ["reason"],
                    "properties": {"reason": {"type": "string"}, "actor": {"type": "string"}},
                }
                operation["requestBody"] = {
                    "required": True,
                    "content": {"application/json": {"schema": schema}},
                }
            paths[f"/v1/{name}/{route}"] = {"post": operation}
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


def _predict(served: Served) -> dict[str, Any]:
    use_case = served.use_case
    body = {
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["entity"]}, {"required": ["features"]}],
        "properties": {
            "entity": {"type": _TYPES[use_case.entity.type], "description": use_case.entity.key},
            "features": {
                "type": "object",
                "additionalProperties": False,
                "required": _trained(served),
                "properties": {
                    name: {"type": [_TYPES[kind], "null"]}
                    for name, kind in use_case.feature_types.items()
                },
            },
        },
    }
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {
        status: {"description": text} | ({} if status == "200" else {"content": error})
        for status, text in _STATUS.items()
    }
    responses["200"]["content"] = {"application/json": {"schema": _ANSWER}}
    return {
        "summary": f"Score one {use_case.entity.name}: {use_case.title or use_case.name}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "example": _example(use_case)}},
        },
        "responses": responses,
    }


def _trained(served: Served) -> list[str]:
    scorer = (served.champion.scorer or served.champion.remote) if served.champion else None
    return scorer.features if scorer else served.use_case.trained_features


def _example(use_case: UseCase) -> dict[str, Any]:
    return {"entity": 42 if use_case.entity.type == "int64" else "42"}


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
            "items": {"type": "string", "enum": ["fallback", "stale", "unknown"]},
        },
    },
}


def docs(state: Mapping[str, Served]) -> bytes:
    """Return a page that says what can be asked and how."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Evergreen serving node</title>",
        f"<style>{_STYLE}</style><h1>Evergreen serving node</h1>",
        "<p>The machine-readable form of this page is <a href=openapi.json>openapi.json</a>.</p>",
    ]
    for name, served in sorted(state.items()):
        use_case, champion = served.use_case, served.champion
        serving = (
            f"model version {champion.version} of {champion.partition}"
            if champion
            else "no model yet"
        )
        example = json.dumps(_example(use_case))
        parts.append(
            f"<h2>{html.escape(use_case.title or name)}</h2><p>Serving: {html.escape(serving)}.</p>"
        )
        command = (
            f"curl -s -H 'content-type: application/json' -d '{example}' "
            f"http://HOST:PORT/v1/{name}/predict"
        )
        parts.append(f"<pre>{html.escape(command)}</pre>")
        parts.append(f"<p>Or send a whole row as <code>features</code>: {_rows(use_case)}</p>")
    parts.append("<h2>Routes</h2><table><tr><th>Route<th>What it does</tr>")
    for path, methods in openapi(state)["paths"].items():
        for method, operation in methods.items():
            guard = " (needs the node's token)" if "security" in operation else ""
            route = f"{method.upper()} <code>{html.escape(path)}</code>"
            parts.append(
                f"<tr><td class=m>{route}<td>{html.escape(operation['summary'])}{guard}</tr>"
            )
    parts.append("</table><h2>Answers of predict</h2><table>")
    parts += [
        f"<tr><td class=m>{status}<td>{html.escape(text)}</tr>" for status, text in _STATUS.items()
    ]
    parts.append("</table></html>")
    return "".join(parts).encode()


def _rows(use_case: UseCase) -> str:
    return ", ".join(
        f"<code>{html.escape(name)}</code> ({kind})"
        for name, kind in use_case.feature_types.items()
    )
