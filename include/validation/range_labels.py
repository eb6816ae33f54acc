"""The labels of some partitions, from rows that are in the lake and rows that were just curated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import pyarrow as pa

from include.errors import ConfigError
from include.lake.sql import connect
from include.pipeline.ingest_outputs import IngestedSource, IngestOutputs
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.point_in_time.curated import label_schema
from include.point_in_time.views import AsOfViews, lanes_for
from include.validation import labels
from include.validation.curated_versions import CuratedVersions
from include.validation.lookback import recorded_results
from include.validation.partition_check import PartitionCheck


class RangeLabels:
    """The labels of some partitions; what the label's SQL reads is loaded once for all of them.

    `stored` are the earlier partitions whose curated rows are taken from the lake, `checks` holds
    those that were curated here.
    """

    def __init__(
        self,
        contexts: Sequence[StageContext],
        ingested: Mapping[str, Mapping[str, IngestedSource]],
        versions: CuratedVersions,
        checks: Mapping[str, PartitionCheck],
        stored: Sequence[str],
    ) -> None:
        self._contexts, self._ingested, self._versions = contexts, ingested, versions
        self._checks, self._stored = checks, stored
        self._use_case = contexts[0].use_case
        self._opened = ExitStack()
        self._con = self._opened.enter_context(connect())
        self._views: AsOfViews | None = None
        self._answers: dict[str, pa.Table] = {}

    def close(self) -> None:
        """Close the connections, and what was loaded with them."""
        self._opened.close()

    def of(self, context: StageContext) -> pa.Table:
        """Return the labels of a partition; none of one that is blocked.

        Raises:
            ConfigError: the label's column or SQL gives no labels.
        """
        check = self._checks[context.key]
        if check.blocked:
            return label_schema(self._use_case).empty_table()
        if self._use_case.label.sql is None:
            return self._from_column(check)
        if self._views is None:
            self._views = self._load()
            self._answers = self._ask_for_all(self._views)
        if context.key in self._answers:
            return self._answers.pop(context.key)
        return labels.from_sql(self._use_case, self._views, [context.period], self._con)[
            context.key
        ]

    def _ask_for_all(self, views: AsOfViews) -> dict[str, pa.Table]:
        """Return the labels of all partitions; none where those of some partition are refused.

        That one is then told alone, in its turn: those before it stand.
        """
        due = [each.period for each in self._contexts if not self._checks[each.key].blocked]
        try:
            return labels.from_sql(self._use_case, views, due, self._con)
        except ConfigError:
            return {}

    def _from_column(self, check: PartitionCheck) -> pa.Table:
        name = str(self._use_case.label.source)
        if self._use_case.sources[name].kind == "static":
            raise ConfigError(
                f"{self._use_case.name}: label.source {name} is static; labels need events, "
                "or write label.sql"
            )
        rows = check.sources.get(name)
        if rows is None:  # the partition lies outside the source's history
            return label_schema(self._use_case).empty_table()
        return labels.from_column(self._use_case, rows.curated, self._con)

    def _load(self) -> AsOfViews:
        """Load what the label's SQL reads: partitions of the lake, and those curated here."""
        names = labels.sources(self._use_case)
        static = {name for name in names if self._use_case.sources[name].kind == "static"}
        more: dict[str, pa.Table] = {}
        for name in names:
            parts = (
                self._versions.unwritten(name)
                if name in static
                else [
                    check.sources[name].curated
                    for check in self._checks.values()
                    if not check.blocked and name in check.sources
                ]
            )
            if parts:
                more[name] = pa.concat_tables(parts)
        return self._opened.enter_context(
            AsOfViews(
                connect(alone=True),  # the views change settings, which are a database's
                self._contexts[0].lake,
                self._use_case,
                keys=self._stored,
                sources=names,
                more=more,
                versions={name: self._known_versions(name) for name in static},
                lanes=lanes_for(len(self._contexts)),
            )
        )

    def _known_versions(self, name: str) -> set[str]:
        """Return the versions of a static source that the partitions know.

        A label is asked twice, at a partition's `as_of` and at the start of its interval; at its
        start the version is that of the partition before.
        """
        keys = [context.key for context in self._contexts]
        before = {key: partitions.earlier(self._use_case, key) for key in keys}
        unread = {key for key in before.values() if key is not None and key not in self._ingested}
        ingested = {
            result.key: IngestOutputs.of(result).sources
            for result in recorded_results(self._contexts[0], "ingest_data", unread)
        } | dict(self._ingested)
        versions = {self._ingested[key][name].version for key in keys}
        for key, earlier in before.items():
            # One that was never ingested: the nearest before it.
            near = (
                earlier
                if earlier in ingested
                else max((other for other in ingested if other < key), default=None)
            )
            source = ingested[near].get(name) if near is not None else None
            versions |= {source.version} if source is not None else set()
        return {version for version in versions if version}
