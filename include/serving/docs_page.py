"""Pages for people: what can be asked of the node and how, without a script, and one to try it.

The latter is Swagger UI, with files of this machine alone.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from include.config.tokens import Role
from include.errors import Unavailable
from include.serving import openapi
from include.serving.http import Refusal
from include.serving.snapshot import Served

# The page holds names from use cases' files: escaping is on, and a browser is told to run nothing.
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
}
# The page to try requests runs the node's own scripts, and asks this node alone.
TRY_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
}
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png"}
# By name: nothing else of the package is given out.
_OF_PACKAGE = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"})
_OWN = frozenset({"try.js"})
_TEMPLATES = Path(__file__).with_name("templates")
_environment = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page_template(name: str) -> Template:
    """Return the template of a page, compiled.

    Asked for when the node starts: the first reader would otherwise hold up the predictions.
    """
    return _environment.get_template(name)


_template = page_template("docs.html")


def try_page() -> bytes:
    """Return the page on which requests can be tried."""
    return _file(_TEMPLATES / "try.html")


def asset(name: str) -> tuple[bytes, str]:
    """Return a file that the page to try requests loads, and its media type.

    Raises:
        Refusal: 404, it loads no such file.
    """
    if name in _OWN:
        path = _TEMPLATES / name
    elif name in _OF_PACKAGE:
        path = _package_folder() / name
    else:
        raise Refusal(404, "not_found", f"no file {name[:80]!r}; see /docs", linger=True)
    return _file(path), _MEDIA_TYPES[path.suffix]


@cache
def _file(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _package_folder() -> Path:
    """Return the folder of Swagger UI's files; the package that brings them is not imported.

    Raises:
        Unavailable: it is not installed.
    """
    spec = importlib.util.find_spec("flask_swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("Swagger UI is not installed; run `make install`")
    return Path(spec.submodule_search_locations[0]) / "dist"


def describe_here(served: Served) -> str:
    """Return what this node does for the release that it knows of."""
    release = served.release
    if release is None:
        return "no release that this node takes part in"
    if release.why:
        return f"nothing is given to the challenger: {release.why}"
    if release.state == "watched":
        return "its model is champion here, and watched"
    if release.mode == "shadow":
        return "requests are mirrored to the challenger, behind their answers"
    if release.share:
        return f"{release.share / 100:g} % of the entities are the challenger's"
    return "the challenger is tried, and gets no request"


def render(served_by_name: Mapping[str, Served], free: frozenset[Role] = frozenset()) -> str:
    """Return the page; whoever asks needs no token for the roles in `free`."""
    use_cases = [
        {
            "name": name,
            "title": served.use_case.title or name,
            "champion": served.champion,
            "release": describe_here(served) if served.release else "",
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
            "role": operation["x-role"] if "security" in operation else "",
        }
        for path, methods in openapi.document(served_by_name, free)["paths"].items()
        for method, operation in methods.items()
    ]
    return _template.render(use_cases=use_cases, routes=routes, answers=openapi.MEANING_BY_STATUS)
