"""Run a data stage for many partitions in one pass, and renew those that other rules made."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from include.config.settings import Settings
from include.errors import ConfigError, MissingPartition
from include.lake.batches import BatchedLake
from include.pipeline.execution import Execution, Prepared, Report, audit_entry, outcome_of
from include.pipeline.flow import DATA_STAGES
from include.pipeline.settling import Computed, Settlement
from include.pipeline.stage import Outcome, StageContext
from include.records.leases import Leases
from include.records.records import Partition, StageResult

log = logging.getLogger(__name__)

RECOMPUTED = "partition.recomputed"  # audit action: other rules gave the partition other content


def run_range(
    name: str,
    use_case_name: str,
    keys: Sequence[str],
    *,
    settings: Settings,
    owner: str = "",
    attempt: int = 1,
    actor: str = "cli",
    options: Mapping[str, Any] | None = None,
    started: datetime | None = None,
) -> Iterator[Report]:
    """Run a data stage for many partitions in one scan; yield a report a partition.

    Each is recorded alone. Those that are unchanged are answered from the record, first; a blocked
    one stops itself, not the range.

    Raises:
        ConfigError: the stage takes one partition at a time, or a partition is not on record.
        Busy: somebody else is at work on one of them.
    """
    execution = Execution.begin(
        name,
        use_case_name,
        settings=settings,
        owner=owner,
        attempt=attempt,
        actor=actor,
        options=options,
        started=started,
    )
    if execution.stage.compute_range is None:
        raise ConfigError(
            f"{name} takes one partition at a time; ranges are for {', '.join(DATA_STAGES)}"
        )
    records, use_case = execution.records, execution.use_case
    with records.leases.claim_all(
        use_case.name,
        name,
        keys,
        owner=execution.owner,
        attempt=attempt,
        ttl=settings.lease_seconds,
    ) as leases:
        # Read once, since a query a partition and stage takes longer than most partitions do; and
        # under the leases, since nobody records one of the partitions from now on.
        preloaded = {
            (result.stage, result.key): result
            for result in records.results.of(use_case.name, stage=DATA_STAGES)
        }
        partitions = {row.key: row for row in records.partitions.of(use_case.name)}
        answers: dict[str, Any] = {}
        lake = _batched_lake(execution, leases, preloaded)
        prepared: dict[str, Prepared] = {}
        for key in keys:
            began = time.monotonic()
            context = execution.context(
                key,
                leases.each[key],
                partition=partitions.get(key),
                lake=lake,
                preloaded=preloaded,
                answers=answers,
            )
            try:
                prepared[key] = execution.prepare(context)
            except MissingPartition as error:
                execution.record_refusal(context, error, began)
                yield execution.report(key, Outcome("failed", "", str(error)))
        renew_outdated(execution, [context for context, _, _ in prepared.values()])
        lake.flush()  # what was renewed is seen
        unchanged = execution.find_answers(list(prepared.values()))
        for key, result in unchanged.items():
            yield execution.report(key, outcome_of(result), reused=True)
            del prepared[key]
        for settled in _compute_and_commit(execution, prepared, lake, leases):
            yield execution.report(
                settled.context.key, settled.outcome, seconds=settled.result.seconds
            )


def find_outdated(name: str, use_case_name: str, key: str, *, settings: Settings) -> list[str]:
    """Return the earlier partitions that a run of a stage for `key` would first compute again.

    Nothing is claimed or written.
    """
    execution = Execution.begin(name, use_case_name, settings=settings)
    if execution.stage.outdated is None:
        return []
    partition = execution.records.partitions.get(use_case_name, key) or Partition(
        use_case_name, key, "backfill", "data", "", execution.started
    )
    return execution.stage.outdated([execution.context(key, partition=partition)])


def renew_outdated(execution: Execution, contexts: Sequence[StageContext]) -> None:
    """Compute again, in one pass, earlier partitions that were made by other rules than today's.

    One that comes out equal only gets the new memo key; another is replaced, which is audited.
    Mode, target and live effects stay. A partition that somebody else is at work on is left to
    them.
    """
    if not contexts or execution.stage.outdated is None or execution.stage.compute_range is None:
        return
    keys = execution.stage.outdated(contexts)
    if not keys:
        return
    # What a person asked for (a restatement, say) is asked for the run's own partitions alone.
    execution = replace(execution, options={})
    records, use_case = execution.records, execution.use_case.name
    partitions = {row.key: row for row in records.partitions.of(use_case)}
    with records.leases.claim_all(
        use_case,
        execution.stage.name,
        keys,
        owner=execution.owner,
        attempt=execution.attempt,
        ttl=execution.settings.lease_seconds,
        only_free=True,
    ) as leases:
        lake = _batched_lake(execution, leases, contexts[0].preloaded)
        prepared: dict[str, Prepared] = {}
        for key, lease in sorted(leases.each.items()):
            context = execution.context(
                key,
                lease,
                partition=partitions.get(key),
                lake=lake,
                preloaded=contexts[0].preloaded,
            )
            try:
                prepared[key] = execution.prepare(context)
            except MissingPartition as error:
                log.info("%s %s %s stays as it is: %s", execution.stage.name, use_case, key, error)
        differing = sum(
            _is_recomputed(settled.outcome) and not settled.outcome.lost
            for settled in _compute_and_commit(
                execution, prepared, lake, leases, audit_changes=True
            )
        )
    log.info(
        "%s %s: rules changed, %d partitions computed again, %d differ",
        execution.stage.name,
        use_case,
        len(prepared),
        differing,
    )


def _batched_lake(
    execution: Execution, leases: Leases, preloaded: dict[tuple[str, str], StageResult] | None
) -> BatchedLake:
    """Return a lake for a range, which takes back what is expected of a lost partition."""
    recorded = dict(preloaded or {})

    def when_lost(app: str) -> None:
        place = execution.stage.name, keys[app]
        if preloaded is None:
            return
        preloaded.pop(place, None)
        if place in recorded:
            preloaded[place] = recorded[place]

    keys = {lease.app: lease.key for lease in leases.each.values()}
    return BatchedLake(
        execution.settings.lake_root, find_lost=leases.find_lost, when_lost=when_lost
    )


def _compute_and_commit(
    execution: Execution,
    prepared: Mapping[str, Prepared],
    lake: BatchedLake,
    leases: Leases,
    *,
    audit_changes: bool = False,
) -> Iterator[Computed]:
    """Compute partitions in one pass, and yield each once it is on record.

    What they write is committed together, then each one's record: a reader goes by the record. A
    batch is written while the next one is computed.
    """
    compute_range = execution.stage.compute_range
    if not prepared or compute_range is None:
        return
    with Settlement(execution, lake, leases) as settlement:
        began = time.monotonic()
        outcomes = iter(compute_range([context for context, _, _ in prepared.values()]))
        while True:
            try:
                context, outcome = next(outcomes)
            except StopIteration:
                break
            except Exception:
                # What was computed before stands, whatever ended the range.
                yield from settlement.finish()
                raise
            if audit_changes:
                outcome = _with_change(execution, context, outcome)
            computed = Computed(
                context, outcome, execution.result_of(prepared[context.key], outcome, began)
            )
            if context.preloaded is not None and not outcome.lost:
                # The next partitions of the pass look back on it.
                context.preloaded[execution.stage.name, context.key] = computed.result
            yield from settlement.add(computed)
            began = time.monotonic()
        yield from settlement.finish()


def _with_change(execution: Execution, context: StageContext, outcome: Outcome) -> Outcome:
    """Return the outcome with an audit entry, if it is another than is recorded."""
    recorded = context.result(execution.stage.name)
    if recorded is None or (recorded.digest, recorded.state) == (outcome.digest, outcome.state):
        return outcome
    details = {
        "stage": execution.stage.name,
        "reason": "rules changed",
        "was": recorded.digest,
        "is": outcome.digest,
    }
    entry = audit_entry(context, RECOMPUTED, details)
    return replace(outcome, entries=(*outcome.entries, entry))


def _is_recomputed(outcome: Outcome) -> bool:
    return any(entry.action == RECOMPUTED for entry in outcome.entries)
