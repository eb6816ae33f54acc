"""Compares what each stage recorded with what the lake holds: the check that no write changed a value."""

from __future__ import annotations

from include.pipeline import stored
from tests.installation import Installation


def differing(made: Installation) -> list[str]:
    """Return the `table partition` of all results on record whose rows in the lake have another digest."""
    results = made.records.results(made.name)
    return [told for result in results for told in stored.differing(made.lake, made.use_case, result)]
