"""Write what partitions of a range came to, beside the computing of the next ones.

Each batch is written and recorded in one thread, in the order in which it was computed: its tables
first, a commit each, then its records in one transaction. Whatever ends the process in between
leaves rows that no record names, which no reader sees and the next run replaces.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

from include.errors import Busy
from include.lake.batches import Batch, BatchedLake
from include.pipeline.engines import translated, where_of
from include.pipeline.execution import Execution
from include.pipeline.stage import Outcome, StageContext
from include.pipeline.stage import lost as lost_outcome
from include.records.leases import Leases
from include.records.records import StageResult
from include.records.results import Commit

log = logging.getLogger(__name__)

# Partitions and bytes of rows that are committed together: more would hold more rows at once, fewer
# would commit more often. Two batches are held, the one that is written and the next; the writer
# holds about as much again.
BATCH = 120
BATCH_BYTES = 128 * 1024**2
SHARE = 16  # of the memory of a stage that a batch may be, where that is less


class Computed(NamedTuple):
    """A partition of a range, and the result that is to record, or records, what it came to."""

    context: StageContext
    outcome: Outcome
    result: StageResult


class Settlement:
    """The writing of a range's batches in a thread of its own, one after the other."""

    def __init__(self, execution: Execution, lake: BatchedLake, leases: Leases) -> None:
        self._execution, self._lake, self._leases = execution, lake, leases
        self._bytes = min(BATCH_BYTES, execution.settings.memory_bytes // SHARE)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="settle")
        self._waiting: list[Computed] = []
        self._settled: list[Computed] = []

    def __enter__(self) -> Settlement:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is being written is written to its end, under leases that are still held.
        self._pool.shutdown()

    def add(self, computed: Computed) -> list[Computed]:
        """Take in what a partition came to; return what is on record since the last call."""
        self._waiting.append(computed)
        if len(self._waiting) < BATCH and self._lake.waiting_bytes <= self._bytes:
            return []
        return self._start()

    def finish(self) -> list[Computed]:
        """Write and record all that waits; return what is on record since the last call."""
        settled = self._start() if self._waiting else []
        self._lake.wait()
        return settled + self._taken()

    def _start(self) -> list[Computed]:
        """Begin with what waits once the batch before is on record, which is returned."""
        self._lake.wait()
        settled = self._taken()
        waiting, self._waiting = self._waiting, []

        def work(batch: Batch) -> None:
            self._settled = self._settle(waiting, batch)

        self._lake.flush_beside(self._pool, work)
        return settled

    def _taken(self) -> list[Computed]:
        settled, self._settled = self._settled, []
        return settled

    def _settle(self, waiting: Sequence[Computed], batch: Batch) -> list[Computed]:
        """Write what some partitions have computed, then record each.

        Returns what became of them: where a lease is lost, whoever took it records the partition,
        and the others go on.
        """
        began = time.monotonic()
        execution = self._execution
        with translated(where_of(execution.stage.name, [each.context for each in waiting])):
            batch.write()
        # Shared out, since it is paid once for all.
        share = (time.monotonic() - began) / len(waiting)
        settled = [_without_lost(each, batch.lost, share) for each in waiting]
        lost = execution.records.results.commit_all(
            self._leases,
            [
                Commit(each.result, each.outcome.entries, each.outcome.in_transaction)
                for each in settled
                if not each.outcome.lost
            ],
        )
        for key, error in lost.items():
            batch.lose(self._leases.each[key].app, error)
        settled = [
            each._replace(outcome=lost_outcome(lost[each.context.key]))
            if each.context.key in lost
            else each
            for each in settled
        ]
        for each in settled:
            if each.outcome.lost:
                log.warning("%s", each.outcome.reason)
        return settled


def _without_lost(computed: Computed, lost: Mapping[str, Busy], share: float) -> Computed:
    """Return what became of a partition once all is written, with its share of the time."""
    context, outcome, result = computed
    error = lost.get(context.held.app)
    return Computed(
        context,
        outcome if error is None else lost_outcome(error),
        replace(result, seconds=result.seconds + share),
    )
