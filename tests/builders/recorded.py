"""Compares what each stage recorded with what the lake holds: the check that no write changed a
value.
"""

from __future__ import annotations

from include.pipeline.execution import Execution
from include.pipeline.runner import find_altered_partitions
from tests.builders.installation import Installation


def differing(made: Installation) -> list[str]:
    """Return the `table partition` of all results on record whose rows in the lake have another
    digest.
    """
    found: list[str] = []
    for result in made.records.results.of(made.name):
        execution = Execution.begin(result.stage, made.name, settings=made.settings)
        found += find_altered_partitions(execution.stage, execution.context(result.key), result)
    return found
