"""Lines of YAML in sentences: they read back as what they set."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from include.config import remedies


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("gates", "min_rows"), 50, "gates: {min_rows: 50}"),
        (("label", "delay"), "90d", "label: {delay: 90d}"),
        (("sources", "no", "max_bad"), 0.03, "sources: {'no': {max_bad: 0.03}}"),
        (("training", "exclude"), ["yes", "a: b"], "training: {exclude: ['yes', 'a: b']}"),
        (("training", "exclude"), ["name"] * 60, None),
    ],
)
def test_a_line_reads_back_and_is_one_line(path: Any, value: Any, line: str | None) -> None:
    written = remedies.yaml_line(path, value)
    assert "\n" not in written
    assert line is None or written == line
    read = yaml.safe_load(written)
    for name in path:
        read = read[name]
    assert read == value


def test_rounding_never_crosses_the_number() -> None:
    assert remedies.rounded_up(0.0301, 2) == 0.04
    assert remedies.rounded_up(0.03, 2) == 0.03
    assert remedies.rounded_down(0.5599, 2) == 0.55
    assert remedies.rounded_down(-0.0101) == -0.011
