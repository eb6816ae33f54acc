"""Compares what each stage recorded with what the lake holds: the check that no write changed a
value.
"""

from __future__ import annotations

from include.clock import utc_now
from include.pipeline import runner
from tests.builders.installation import Installation


def differing(made: Installation) -> list[str]:
    """Return the `table partition` of all results on record whose rows in the lake have another
    digest.
    """
    found: list[str] = []
    for result in made.records.results.of(made.name):
        context = runner._context(
            made.settings, made.use_case, result.key, made.records, None, "", utc_now(), {}
        )
        found += runner.stored_otherwise(runner.stage_of(result.stage), context, result)
    return found
