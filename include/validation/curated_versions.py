"""The versions of static sources, each curated once, whichever partition comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import pyarrow as pa

from include.lake.digests import combine
from include.pipeline.ingest_outputs import IngestedSource
from include.pipeline.stage import StageContext
from include.pipeline.validation_outputs import CuratedSource
from include.point_in_time import partitions
from include.point_in_time.curated import curated_table
from include.validation import findings
from include.validation.curation import CuratedRows, curate, curated_digest
from include.validation.expectations import Profile


class CuratedVersions:
    """The versions of the static sources that some partitions know.

    `earlier` gives what is recorded of validated partitions, the likeliest first: a version that is
    recorded with the same mark, and is in the lake, is not curated again.
    """

    def __init__(
        self,
        context: StageContext,
        ingested: Mapping[str, Mapping[str, IngestedSource]],
        keys: Sequence[str],
        *,
        rules: str,
        earlier: Callable[[str], Iterable[CuratedSource]],
    ) -> None:
        self._lake, self._use_case = context.lake, context.use_case
        self._ingested, self._rules, self._earlier = ingested, rules, earlier
        self._recorded: dict[str, dict[str, CuratedSource]] = {}
        self._unwritten: dict[tuple[str, str], CuratedRows] = {}
        for name, source in context.use_case.sources.items():
            if source.kind == "static":
                self._recorded[name] = {}
                for key in keys:
                    self._add(name, ingested[key][name])

    def profile(self, key: str) -> Profile:
        """Return the profile columns of the versions that a partition knows."""
        profile: Profile = {}
        for name, versions in self._recorded.items():
            source = self._ingested[key].get(name)
            if source is not None and source.version in versions:
                profile |= versions[source.version].profile or {}
        return profile

    def unwritten(self, name: str) -> list[pa.Table]:
        """Return the curated rows of a source's versions that are not in the lake yet."""
        return [rows.curated for (source, _), rows in self._unwritten.items() if source == name]

    def write(self, context: StageContext, name: str, version: str) -> CuratedSource:
        """Write a version where it is not in the lake yet, and return what to record of it."""
        rows = self._unwritten.get((name, version))
        if rows is not None:
            table = curated_table(self._lake, self._use_case, name)
            self._lake.set_partition(table, version, rows.curated, fence=context.fence, shared=True)
            self._lake.set_partition(
                context.table(f"quarantine/{name}"),
                version,
                rows.quarantine,
                fence=context.fence,
                shared=True,
            )
            # After the writes: where one is refused, the next partition tries again.
            del self._unwritten[name, version]
        return self._recorded[name][version]

    def _add(self, name: str, ingested: IngestedSource) -> None:
        """Add a version as it is recorded, else curate its rows."""
        version = str(ingested.version)
        if version in self._recorded[name]:
            return
        table = curated_table(self._lake, self._use_case, name)
        source = self._use_case.sources[name]
        mark = combine([version, ingested.digest, source.model_dump_json(), self._rules])
        recorded = next((each for each in self._earlier(name) if each.mark == mark), None)
        if recorded is not None and version in self._lake.keys(table):
            self._recorded[name][version] = msgspec.structs.replace(recorded, table=table)
            return
        period = partitions.period(self._use_case, version)
        rows = curate(self._lake, self._use_case, name, [period], {version: ingested})[version]
        self._recorded[name][version] = CuratedSource(
            table=table,
            curated_digest=curated_digest(rows.curated, self._use_case, name),
            rows=len(rows.curated),
            **findings.counts(rows),
            version=version,
            mark=mark,
            profile=findings.profile(name, rows),
        )
        self._unwritten[name, version] = rows
