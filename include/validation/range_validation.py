"""The validation of some partitions, checked together and written one by one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from include.artefacts.address import VALIDATION
from include.errors import Busy
from include.lake.digests import combine
from include.pipeline.stage import Outcome, StageContext, lost
from include.pipeline.validation_outputs import CuratedSource, LabelTable, ValidationOutputs
from include.point_in_time.curated import curated_table, label_table
from include.validation import expectations, findings, labels
from include.validation.curated_versions import CuratedVersions
from include.validation.curation import curated_digest
from include.validation.lookback import (
    JUDGED,
    ingested_sources,
    label_events,
    label_lookback,
    recorded_results,
)
from include.validation.partition_check import PartitionCheck, check_partitions
from include.validation.range_labels import RangeLabels

log = logging.getLogger(__name__)


class RangeValidation:
    """Some partitions and the earlier ones that their labels need, checked in one scan.

    `rules` is the digest of all that judges raw rows, `code` that of its code alone. `newest` says
    that the last partition is the newest of the whole range: it gets a page.
    """

    def __init__(
        self, contexts: Sequence[StageContext], *, stage: str, rules: str, code: str, newest: bool
    ) -> None:
        self._contexts, self._first, self._newest = contexts, contexts[0], newest
        self._stage, self._rules = stage, rules
        self._use_case, self._lake = self._first.use_case, self._first.lake
        self._limits = expectations.limits(self._use_case)
        self._label_rules = labels.rules_digest(self._use_case)
        self._ingested = ingested_sources(contexts)
        keys = [context.key for context in contexts]
        earlier = sorted(
            {key for context in contexts for key in label_lookback(context, self._ingested)}
            - set(keys)
        )
        self._look_at_records([*earlier, *keys])
        self._versions = CuratedVersions(
            self._first, self._ingested, keys, rules=code, earlier=self._recorded_sources
        )
        self._checks, self._suite_result = self._check(keys)
        # Labels look back on the chunk before: on what is there of it, whatever lease was lost. It
        # is written while this one is checked.
        self._lake.flush()
        self._look_at_records([*earlier, *keys])
        stored = [key for key in earlier if self._is_curated(key)]
        if curated_here := [key for key in earlier if key not in stored]:
            self._checks |= self._check(curated_here)[0]
        self._labels = RangeLabels(contexts, self._ingested, self._versions, self._checks, stored)

    def outcomes(self) -> Iterator[tuple[StageContext, Outcome]]:
        """Write each partition and yield what it came to."""
        try:
            for context in self._contexts:
                try:
                    outcome = self._write(context)
                except Busy as error:
                    outcome = lost(error)
                yield context, outcome
        finally:
            self._labels.close()

    def _look_at_records(self, keys: Sequence[str]) -> None:
        """Look up what is on record of some partitions."""
        self._recorded = {
            result.key: result for result in recorded_results(self._first, self._stage, keys)
        }
        self._outputs = {key: ValidationOutputs.of(row) for key, row in self._recorded.items()}

    def _check(self, keys: Sequence[str]) -> tuple[dict[str, PartitionCheck], Any]:
        """Check some partitions in one scan; return also the suite's whole result."""
        return check_partitions(
            self._lake, self._use_case, self._ingested, keys, self._versions.profile
        )

    def _write(self, context: StageContext) -> Outcome:
        """Write a partition's curated rows, quarantine, labels and report."""
        check = self._checks[context.key]
        recorded = self._outputs.get(context.key, ValidationOutputs())
        sources: dict[str, CuratedSource] = {}
        for name, source in self._use_case.sources.items():
            ingested = self._ingested[context.key][name]
            if source.kind == "static":
                sources[name] = self._versions.write(context, name, str(ingested.version))
            elif ingested.is_expected:
                sources[name] = self._write_source(context, name, check, recorded.sources.get(name))
        label_rows = self._labels.of(context)
        written_labels = self._write_labels(context, label_rows, recorded)
        report = self._write_report(context, check)
        outputs = ValidationOutputs(
            verdict=_verdict(check, sources),
            sources=sources,
            labels=written_labels,
            report=context.store.where(report),
            report_uri=report,
            rules=self._rules,
        )
        parts = [f"{name}:{source.curated_digest}" for name, source in sorted(sources.items())]
        digest = combine([str(outputs.verdict), *parts, f"labels:{written_labels.digest}"])
        log.info("%s %s: %s", self._use_case.name, context.key, outputs.verdict)
        return Outcome(
            "blocked" if check.blocked else "done",
            digest,
            check.reason(self._use_case),
            outputs.plain(),
        )

    def _write_source(
        self,
        context: StageContext,
        name: str,
        check: PartitionCheck,
        recorded: CuratedSource | None,
    ) -> CuratedSource:
        """Write the curated and quarantined rows of an event source where they are not there yet.

        A partition that blocks keeps its quarantine and has no curated row.
        """
        rows = check.sources[name]
        curated = rows.curated.slice(0, 0) if check.blocked else rows.curated
        table = curated_table(self._lake, self._use_case, name)
        digest_of = partial(curated_digest, use_case=self._use_case, name=name)
        source = CuratedSource(
            table=table,
            curated_digest=digest_of(curated),
            rows=len(curated),
            **findings.counts(rows),
        )
        if recorded != source or not self._holds(
            table, context.key, source.curated_digest, digest_of
        ):
            self._lake.set_partition(table, context.key, curated, fence=context.fence)
            self._lake.set_partition(
                context.table(f"quarantine/{name}"),
                context.key,
                rows.quarantine,
                fence=context.fence,
            )
        return source

    def _write_labels(
        self, context: StageContext, rows: pa.Table, recorded: ValidationOutputs
    ) -> LabelTable:
        """Write a partition's labels where they are not there yet."""
        table = label_table(self._lake, self._use_case)
        digest_of = partial(labels.label_digest, use_case=self._use_case)
        written = LabelTable(
            table=table,
            digest=digest_of(rows),
            rows=len(rows),
            rules=self._label_rules,
        )
        if recorded.labels != written or not self._holds(
            table, context.key, written.digest, digest_of
        ):
            self._lake.set_partition(table, context.key, rows, fence=context.fence)
        return written

    def _holds(
        self, table: str, key: str, recorded: str, digest_of: Callable[[pa.Table], str]
    ) -> bool:
        """Tell whether the lake holds just these rows, which then get no further version."""
        return (
            self._lake.exists(table) and digest_of(self._lake.read(table, keys=[key])) == recorded
        )

    def _write_report(self, context: StageContext, check: PartitionCheck) -> str:
        """Keep the result as JSON, and as Great Expectations' page for the newest partition.

        Returns the address of the folder of both.

        Raises:
            Unavailable: it cannot be written.
        """
        folder = f"store:{VALIDATION}/{self._use_case.name}/{context.key}"
        if context.rehearsal:
            return folder
        result = expectations.result_of(
            context.key, check.profile, check.failed, self._use_case, self._limits, check.own
        )
        context.store.write(f"{folder}/result.json", json.dumps(result, default=str))
        if self._newest and context is self._contexts[-1]:
            title = f"{self._use_case.name} {context.key}"
            page = expectations.data_docs(self._suite_result, title)
            context.store.write(f"{folder}/index.html", page)
        return folder

    def _is_curated(self, key: str) -> bool:
        """Tell whether the lake has an earlier partition's curated rows of today.

        They are of the raw rows that there are now, and by the rules that there are now.
        """
        result = self._recorded.get(key)
        if result is None or result.state not in JUDGED or self._outputs[key].rules != self._rules:
            return False
        read = {table: digest for table, partition, digest in result.reads if partition == key}
        sources = self._ingested[key]
        return all(
            read.get(self._first.table(f"raw/{name}")) == sources[name].digest
            for name in label_events(self._first)
            if name in sources
        )

    def _recorded_sources(self, name: str) -> Iterator[CuratedSource]:
        """Yield what is recorded of a source: of the days before, then of all partitions.

        The days before nearly always know the version that is asked for, so the others are read
        only after them.
        """
        for outputs in self._outputs.values():
            if name in outputs.sources:
                yield outputs.sources[name]
        for outputs in self._all_outputs:
            if name in outputs.sources:
                yield outputs.sources[name]

    @cached_property
    def _all_outputs(self) -> list[ValidationOutputs]:
        """What is recorded of all partitions."""
        return [
            ValidationOutputs.of(result) for result in recorded_results(self._first, self._stage)
        ]


def _verdict(check: PartitionCheck, sources: Mapping[str, CuratedSource]) -> str:
    """Return `block`, `quarantine` where some rows were set aside, or `pass`."""
    if check.blocked:
        return "block"
    is_whole = not any(source.quarantined for source in sources.values())
    return "pass" if is_whole else "quarantine"
