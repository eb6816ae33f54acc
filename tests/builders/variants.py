"""Variants of a test: a few run every time, the others with `make test-slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def leave_to_slow(variants: Iterable[Any], *, quick: int = 1) -> list[Any]:
    """Return variants for `parametrize`, all but the first `quick` of them marked as slow."""
    listed = list(variants)
    return listed[:quick] + [pytest.param(each, marks=pytest.mark.slow) for each in listed[quick:]]
