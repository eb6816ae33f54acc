"""Remedies: what a person may write into a use case file to mend or to allow what was refused.

Nothing here changes anything. A refusal names the line and what it would mean; whoever pastes it
has read that. The lines are YAML in its flow form, so they stand inside a sentence. Digests are
over ids, never over these words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

Path = Sequence[str]


def yaml_line(path: Path, value: Any) -> str:
    """Return one line of YAML that sets a field by its path, such as `gates: {min_rows: 50}`."""
    for name in reversed(path):
        value = {name: value}
    text = yaml.safe_dump(
        value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False
    )
    # The outermost braces are not needed, and nobody writes them.
    return text.strip()[1:-1]


def remedy(path: Path, value: Any) -> str:
    """Return the line as it stands in a sentence, between backticks."""
    return f"`{yaml_line(path, value)}`"


def of_source(source: str, field: str, value: Any) -> str:
    """Return the line that sets a field of a source."""
    return remedy(("sources", source, field), value)


def rounded_up(value: float, digits: int = 3) -> float:
    """Return the least number of so few digits that is not below a value."""
    scale = 10.0**digits
    # A hair less: .03 * 1000 is 30.000000000000004 at times, and no reason for .031.
    return math.ceil(value * scale - 1e-9) / scale


def rounded_down(value: float, digits: int = 3) -> float:
    """Return the greatest number of so few digits that is not above a value."""
    return -rounded_up(-value, digits)
