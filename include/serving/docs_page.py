"""A page for people that says what can be asked of the node and how; it has no script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from include.serving import openapi
from include.serving.snapshot import Served

# The page holds names from use cases' files: escaping is on, and a browser is told to run nothing.
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
}
_environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Compiled when the node starts: the first reader would otherwise hold up the predictions.
_template = _environment.get_template("docs.html")


def render(served_by_name: Mapping[str, Served]) -> str:
    """Return the page."""
    use_cases = [
        {
            "name": name,
            "title": served.use_case.title or name,
            "champion": served.champion,
            "request": json.dumps(openapi.example_request(served.use_case)),
            "features": served.feature_types,
        }
        for name, served in sorted(served_by_name.items())
    ]
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation["summary"],
            "guarded": "security" in operation,
        }
        for path, methods in openapi.document(served_by_name)["paths"].items()
        for method, operation in methods.items()
    ]
    return _template.render(use_cases=use_cases, routes=routes, answers=openapi.MEANING_BY_STATUS)
