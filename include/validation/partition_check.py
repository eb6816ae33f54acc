"""The check of a partition: its rows against the contract, its profile against the expectations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from include.config.use_case import UseCase
from include.lake.tables import Lake
from include.pipeline.ingest_outputs import IngestedSource
from include.point_in_time import partitions
from include.validation import expectations, findings
from include.validation.curation import CuratedRows, curate

REMEDY = (
    "mend the source and ingest again with --restate REASON, or change the contract in the use case"
)


@dataclass
class PartitionCheck:
    """What was found of one partition.

    `failed` names the profile columns that fail an expectation of the use case, `own` are the
    results of a person's suite.
    """

    sources: dict[str, CuratedRows]
    profile: expectations.Profile
    failed: list[str]
    own: list[dict[str, Any]] = field(default_factory=list)

    @property
    def blocked(self) -> bool:
        """Tell whether an expectation that blocks has failed."""
        return bool(self.failed) or any(expectations.blocks(result) for result in self.own)

    def reason(self, use_case: UseCase) -> str:
        """Return in words why the partition is blocked, and what to do; empty where it is not."""
        if not self.blocked:
            return ""
        parts = [
            findings.describe_findings(name, use_case.sources[name], rows, self.profile)
            for name, rows in self.sources.items()
        ]
        # A failed expectation that no sentence of a source explains is named by its column.
        beginnings = tuple(f"{name}{mark}" for name in self.sources for mark in ":.")
        parts += [
            f"{column} is {self.profile[column]}"
            for column in self.failed
            if not (column.startswith(beginnings) and findings.is_described(column))
        ]
        parts += [
            expectations.describe_failure(result)
            for result in self.own
            if expectations.blocks(result)
        ]
        return (
            f"blocked: {'; '.join(part for part in parts if part)}. See `evergreen quarantine "
            f"list`; {REMEDY}"
        )


def check_partitions(
    lake: Lake,
    use_case: UseCase,
    ingested: Mapping[str, Mapping[str, IngestedSource]],
    keys: Sequence[str],
    static_profile: Callable[[str], expectations.Profile],
) -> tuple[dict[str, PartitionCheck], Any]:
    """Check some partitions in one scan of each event source; return also the suite's whole result.

    `ingested` is what is recorded of the sources, by partition and source. `static_profile` gives
    the profile of the static versions that a partition knows.

    Raises:
        SourceError: the lake does not hold the rows that ingestion recorded.
        ConfigError: the contract, or an expectation, cannot be computed.
    """
    periods = [partitions.period(use_case, key) for key in sorted(keys)]
    sources: dict[str, dict[str, CuratedRows]] = {period.key: {} for period in periods}
    for name, source in use_case.sources.items():
        if source.kind == "static":
            continue
        recorded = {
            period.key: ingested[period.key][name]
            for period in periods
            if name in ingested[period.key] and ingested[period.key][name].is_expected
        }
        due = [period for period in periods if period.key in recorded]
        for key, rows in curate(lake, use_case, name, due, recorded).items():
            sources[key][name] = rows
    profiles: dict[str, expectations.Profile] = {}
    # A column of the profile that nothing fills stays empty, and is asked nothing.
    unfilled: expectations.Profile = {limit.column: None for limit in expectations.limits(use_case)}
    for period in periods:
        profiles[period.key] = dict(unfilled)
        for name, rows in sources[period.key].items():
            profiles[period.key] |= findings.profile(name, rows, period)
        profiles[period.key] |= static_profile(period.key)
    failed, result = expectations.failures(use_case, profiles)
    suite = expectations.own_suite(use_case)
    checks = {}
    for key, found in sources.items():
        curated = {name: rows.curated for name, rows in found.items()}
        own = expectations.run_own(use_case, suite[1], curated) if suite else []
        checks[key] = PartitionCheck(found, profiles[key], failed[key], own)
    return checks, result
