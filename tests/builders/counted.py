"""What a node has counted of a release, whatever the minutes in which it was."""

from __future__ import annotations

from include.predictions.window_counts import Counts, add
from include.serving.evidence import Evidence


def by_arms(evidence: Evidence) -> dict[tuple[str, str], Counts]:
    """Fold what was noted; return the sums by assigned and answering arm."""
    evidence.fold()
    found: dict[tuple[str, str], Counts] = {}
    for key, window in evidence.windows.items():
        arms, counts = (key.arm, key.answering), window.tally.counts()
        found[arms] = add(found[arms], counts) if arms in found else counts
    return found
