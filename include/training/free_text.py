"""The rule by which a text column is free text or a name and no category: drafts and training
judge by it alike.
"""

from __future__ import annotations

FEW = 20


def hardly_repeats(filled: int, distinct: int) -> bool:
    """Tell whether texts hardly ever repeat over the rows that have one: a model would learn its
    rows by heart.
    """
    return distinct > FEW and distinct > 0.5 * filled
