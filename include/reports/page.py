"""The pages for people: rendered from plain data by the templates of this room, and put in place.

Templates escape whatever they are given; no page is made of strings. A page holds its style and
its numbers, and finds the scripts that draw its charts beside the reports: it opens from disk,
without a network, and where no script runs its tables say the same.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from include.files import write_text
from include.reports.scripts import store_scripts

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDERS = tuple(Path(__file__).parent / name for name in ("templates", "static"))
NONE = "\N{EN DASH}"
# What stands between backticks in a message is code, as in the shell and in the log.
CODE = re.compile(r"`([^`]+)`")


class Phrase(NamedTuple):
    """A part of a sentence, which is code or is not."""

    text: str
    code: bool


class Tile(NamedTuple):
    """A number that matters, with its name."""

    name: str
    value: str


def write_page(path: Path, template: str, values: Mapping[str, Any], *, reports: Path) -> None:
    """Render a template and put the page in place as a whole.

    `reports` is the folder of all reports, where the scripts are kept once for all pages.

    Raises:
        OSError: the page or the scripts cannot be written.
    """
    scripts = [
        Path(os.path.relpath(script, path.parent)).as_posix() for script in store_scripts(reports)
    ]
    write_text(path, render(template, values, scripts=scripts))


def render(template: str, values: Mapping[str, Any], *, scripts: Iterable[str] = ()) -> str:
    """Return a page; `scripts` are the addresses of what draws its charts."""
    page: str = _environment().get_template(template).render(values, scripts=list(scripts))
    return page


def split_code(sentence: object) -> list[Phrase]:
    """Return a sentence in parts: those between backticks are code."""
    # A pattern with one group splits into text and code by turns, and begins with text.
    parts = CODE.split(str(sentence))
    return [Phrase(text, index % 2 == 1) for index, text in enumerate(parts) if text]


def number(value: Any) -> str:
    """Return a number as a report shows it; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def percent(value: float | None) -> str:
    """Return a share as a report shows it; a dash where there is none."""
    return NONE if value is None else f"{value:.1%}"


@functools.cache
def _environment() -> Environment:
    # Imported here: whoever imports a stage does not render a page.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDERS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(split_code=split_code, number=number, percent=percent)
    # The order of a figure's parts is that of the code; JSON.parse takes no NaN.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    return environment
