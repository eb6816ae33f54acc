"""What validation found of a source in a partition, as numbers (the profile that expectations
are about) and in words.
"""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from include.config.durations import format_duration
from include.config.use_case_sources import Source
from include.ingestion.columns import FILE, ROW
from include.point_in_time.curated import CREATED
from include.point_in_time.partitions import Period
from include.validation.contract import CONFLICT, RULE
from include.validation.curation import Judged
from include.validation.expectations import AGE, REPEATED, Profile


def counts(judged: Judged) -> dict[str, Any]:
    """Return how many rows were set aside, and by which rule."""
    return {
        "quarantined": len(judged.quarantine),
        "duplicates": judged.duplicates,
        "conflicts": judged.rules.get(CONFLICT, 0),
        "repeated": judged.repeated,
        "sharing": judged.sharing,
        "rules": dict(judged.rules),
    }


def profile(name: str, judged: Judged, period: Period | None = None) -> Profile:
    """Return the profile columns of one source in one partition; shares are of the rows that
    came.
    """
    rows = judged.rows or 1
    profile: Profile = {
        f"{name}: columns missing": len(judged.diff.missing),
        f"{name}: columns not declared": len(judged.diff.extra),
        f"{name}: rows": judged.rows,
        f"{name}: share of bad rows": judged.bad_share,
        f"{name}: share of conflicting duplicates": judged.rules.get(CONFLICT, 0) / rows,
        f"{name}: {REPEATED}": judged.repeated_share,
    }
    for column in judged.curated.column_names[:-2]:
        bad = sum(count for rule, count in judged.rules.items() if rule.startswith(f"{column}: "))
        profile[f"{name}.{column}: share of bad values"] = bad / rows
    if period is not None:
        # What came late or by a person's hand is created at the interval's start, and so makes no
        # partition fresher. Where no row is sound, the newest arrival is at least a period ago.
        newest = (
            pc.max(judged.curated.column(CREATED)).as_py()
            if len(judged.curated)
            else period.arrival_start
        )
        profile[f"{name}: {AGE}"] = (period.as_of - newest).total_seconds()
    return profile


def told(name: str, source: Source, judged: Judged, found: Profile) -> str:
    """Return what is wrong with a source, with samples; empty where nothing is."""
    parts = []
    diff = judged.diff.text(source)
    if diff:
        parts.append(f"columns differ from the contract: {diff}")
    if judged.bad_share > source.max_bad:
        rules = sorted(judged.rules.items(), key=lambda pair: -pair[1])[:4]
        shown = ", ".join(f"{rule} ({count} rows{_sample(judged, rule)})" for rule, count in rules)
        parts.append(
            f"{len(judged.quarantine)} of {judged.rows} rows are bad, more than max_bad "
            f"{source.max_bad:.2%}: {shown}"
        )
    if judged.rules.get(CONFLICT, 0) > source.max_bad * judged.rows:
        key = ", ".join(source.key)
        parts.append(
            f"{judged.rules[CONFLICT]} rows repeat the key [{key}] with other values; name what "
            "tells rows apart in `key`"
        )
    if judged.repeated_share > source.max_bad:
        parts.append(
            f"{judged.sharing} of {judged.rows} rows share entity and {source.event_time} with "
            f"another, so {judged.repeated} decisions would be lost; take a finer time as "
            "event_time, or make the row's own key the entity"
        )
    least = max(source.min_rows, 1 if source.empty == "block" else 0)
    if judged.rows < least or (source.max_rows is not None and judged.rows > source.max_rows):
        parts.append(
            f"{judged.rows} rows came, expected are {least} to {source.max_rows or 'any number'}"
        )
    age = found.get(f"{name}: {AGE}")
    if source.fresh is not None and age is not None and age > source.fresh.total_seconds():
        parts.append(
            f"its newest row arrived {age / 3600:.1f} h before as_of, longer than fresh: "
            f"{format_duration(source.fresh)}"
        )
    return f"source {name}: {'; '.join(parts)}" if parts else ""


def _sample(judged: Judged, rule: str) -> str:
    column = rule.partition(":")[0]
    if column not in judged.quarantine.column_names:
        return ""
    bad = judged.quarantine.filter(pc.equal(judged.quarantine.column(RULE), rule)).slice(0, 3)
    values = ", ".join(
        repr(str(value)[:40]) if value is not None else "nothing"
        for value in bad.column(column).to_pylist()
    )
    row = bad.slice(0, 1).to_pylist()[0]
    return f", such as {values}; {row[FILE]} row {row[ROW]}"


def explained(column: str) -> bool:
    """Tell whether `told` has words for a profile column that failed."""
    words = (
        "columns missing",
        "columns not declared",
        ": rows",
        "share of bad rows",
        "share of bad values",
        "conflicting",
        REPEATED,
        AGE,
    )
    return any(word in column for word in words)
