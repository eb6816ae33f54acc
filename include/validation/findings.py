"""What validation found of a source in a partition, as numbers and in words.

The numbers are the profile that expectations are about.
"""

from __future__ import annotations

import math
from typing import Any

import pyarrow.compute as pc

from include.config.durations import format_duration
from include.config.remedies import of_source, remedy, rounded_up
from include.config.use_case_sources import Source
from include.ingestion.columns import FILE, ROW, headers
from include.point_in_time.curated import CREATED
from include.point_in_time.partitions import Period
from include.validation.curation import CuratedRows
from include.validation.duplicates import CONFLICT
from include.validation.expectations import AGE, REPEATED, Profile
from include.validation.judgement import RULE


def counts(found: CuratedRows) -> dict[str, Any]:
    """Return how many rows were set aside, and by which rule."""
    return {
        "quarantined": len(found.quarantine),
        "duplicates": found.duplicates,
        "conflicts": found.rules.get(CONFLICT, 0),
        "repeated": found.repeated,
        "sharing": found.sharing,
        "rules": dict(found.rules),
    }


def profile(name: str, found: CuratedRows, period: Period | None = None) -> Profile:
    """Return the profile columns of one source in one partition.

    Shares are of the rows that came. `period` is None of a static version, which has no age.
    """
    rows = found.rows or 1
    profile: Profile = {
        f"{name}: columns missing": len(found.diff.missing),
        f"{name}: columns not declared": len(found.diff.extra),
        f"{name}: rows": found.rows,
        f"{name}: share of bad rows": found.bad_share,
        f"{name}: share of conflicting duplicates": found.rules.get(CONFLICT, 0) / rows,
        f"{name}: {REPEATED}": found.repeated_share,
    }
    for column in found.curated.column_names[:-2]:
        bad = sum(count for rule, count in found.rules.items() if rule.startswith(f"{column}: "))
        profile[f"{name}.{column}: share of bad values"] = bad / rows
    if period is not None:
        # What came late or by a person's hand is created at the interval's start, and so makes no
        # partition fresher. Where no row is sound, the newest arrival is at least a period ago.
        newest = (
            pc.max(found.curated.column(CREATED)).as_py()
            if len(found.curated)
            else period.arrival_start
        )
        profile[f"{name}: {AGE}"] = (period.as_of - newest).total_seconds()
    return profile


def describe_findings(name: str, source: Source, found: CuratedRows, profile: Profile) -> str:
    """Return what is wrong with a source, with samples; empty where nothing is."""
    parts = []
    diff = found.diff.text(source)
    if diff:
        parts.append(f"columns differ from the contract: {diff}{_on_columns(name, source, found)}")
    if found.bad_share > source.max_bad:
        rules = sorted(found.rules.items(), key=lambda pair: -pair[1])[:4]
        shown = ", ".join(f"{rule} ({count} rows{_sample(found, rule)})" for rule, count in rules)
        parts.append(
            f"{len(found.quarantine)} of {found.rows} rows are bad, more than max_bad "
            f"{source.max_bad:.2%}: {shown}; {_more_bad(name, found.bad_share)} would go on "
            "without them"
        )
    if found.rules.get(CONFLICT, 0) > source.max_bad * found.rows:
        key = ", ".join(source.key)
        parts.append(
            f"{found.rules[CONFLICT]} rows repeat the key [{key}] with other values; name what "
            "tells rows apart in `key`, or go on without them: "
            f"{_more_bad(name, found.rules[CONFLICT] / found.rows)}"
        )
    if found.repeated_share > source.max_bad:
        parts.append(
            f"{found.sharing} of {found.rows} rows share entity and {source.event_time} with "
            f"another, so {found.repeated} decisions would be lost; take a finer time as "
            "event_time, or make the row's own key the entity, or lose them: "
            f"{_more_bad(name, found.repeated_share)}"
        )
    least = max(source.min_rows, 1 if source.empty == "block" else 0)
    if found.rows < least or (source.max_rows is not None and found.rows > source.max_rows):
        parts.append(
            f"{found.rows} rows came, expected are {least} to {source.max_rows or 'any number'}; "
            f"if so many may come: {_as_many(name, source, found.rows)}"
        )
    age = profile.get(f"{name}: {AGE}")
    if source.fresh is not None and age is not None and age > source.fresh.total_seconds():
        parts.append(
            f"its newest row arrived {age / 3600:.1f} h before as_of, longer than fresh: "
            f"{format_duration(source.fresh)}; if so old is fresh enough: "
            f"{of_source(name, 'fresh', f'{math.ceil(age / 3600)}h')}"
        )
    return f"source {name}: {'; '.join(parts)}" if parts else ""


def _on_columns(name: str, source: Source, found: CuratedRows) -> str:
    """Return what would take the columns as they came; empty where the data have to be mended."""
    names = headers(source)
    lines = [
        remedy(
            ("sources", name, "columns", names[old]),
            {"type": source.columns[names[old]].type, "header": new},
        )
        for old, new in found.diff.renamed
        if names.get(old) in source.columns
    ]
    told = f"; if it is: {' '.join(lines)}" if lines else ""
    if source.extra == "refuse" and found.diff.extra:
        told += f"; {of_source(name, 'extra', 'ignore')} would leave out what is not declared"
    return told


def _more_bad(name: str, share: float) -> str:
    return of_source(name, "max_bad", min(rounded_up(share, 2), 1.0))


def _as_many(name: str, source: Source, rows: int) -> str:
    """Return the line by which so many rows may come."""
    if source.max_rows is not None and rows > source.max_rows:
        return of_source(name, "max_rows", rows)
    # Of none there may be none: `min_rows: 0` alone would still block.
    if rows == 0:
        return remedy(("sources", name), {"empty": "allow", "min_rows": 0})
    return of_source(name, "min_rows", rows)


def _sample(found: CuratedRows, rule: str) -> str:
    column = rule.partition(":")[0]
    if column not in found.quarantine.column_names:
        return ""
    bad = found.quarantine.filter(pc.equal(found.quarantine.column(RULE), rule)).slice(0, 3)
    values = ", ".join(
        repr(str(value)[:40]) if value is not None else "nothing"
        for value in bad.column(column).to_pylist()
    )
    row = bad.slice(0, 1).to_pylist()[0]
    return f", such as {values}; {row[FILE]} row {row[ROW]}"


def is_described(column: str) -> bool:
    """Tell whether `describe_findings` has words for a profile column that failed."""
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
