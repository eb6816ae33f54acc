"""The lines of YAML that a message offers, and the use case that each of them gives."""

from __future__ import annotations

import re
from typing import Any

import yaml

from include.config.use_case import UseCase
from include.config.use_case_file import parse

TOP = "history|label|training|gates|sources"


def offered(message: str) -> list[str]:
    """Return the lines between backticks that set a field of a use case."""
    return re.findall(rf"`((?:{TOP}): \{{[^`]*)`", message)


def pasted(text: str, line: str) -> UseCase:
    """Return the use case of a file into which a line was pasted, block by block."""
    return parse(yaml.safe_dump(_merged(yaml.safe_load(text), yaml.safe_load(line))))


def _merged(before: Any, more: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(more, dict):
        return more
    return before | {name: _merged(before.get(name), value) for name, value in more.items()}
