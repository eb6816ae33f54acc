"""The rule by which a text is free text or a name and no category, for drafts and training."""

from __future__ import annotations

FEW = 20  # different texts, which are categories however few rows there are


def hardly_repeats(filled: int, distinct: int) -> bool:
    """Tell whether texts hardly ever repeat over the rows that have one.

    By such a column a model would know its training rows one by one, and no others.
    """
    return distinct > FEW and distinct > 0.5 * filled
