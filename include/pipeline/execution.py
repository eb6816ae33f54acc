"""Carry out a stage for a partition: the steps that `runner` and `ranges` share.

In order: open the context, take the memo key, look for a record that answers, compute (that is the
caller's), commit what it came to, or record a refusal.
"""

from __future__ import annotations

import importlib
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.errors import Busy, ConfigError, EvergreenError
from include.lake.sql import limit_memory
from include.lake.tables import Lake, RehearsalLake
from include.pipeline import memo, provenance
from include.pipeline.declared import check_declared
from include.pipeline.engines import guarded
from include.pipeline.flow import DATA_STAGES, ENTRY, STAGES
from include.pipeline.lakes import prepare_copies
from include.pipeline.stage import Input, Outcome, Stage, StageContext, State
from include.pipeline.task_records import task_records
from include.point_in_time import partitions
from include.records.records import AuditEntry, Lease, Partition, Records, StageResult

log = logging.getLogger(__name__)

# States in which nothing was found out: such a record never answers for its partition.
UNMEMOISED = ("failed", "waiting", "unreadable")
REPLACEABLE = ("failed", "waiting")  # by a refusal, which never replaces a finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to, small enough for XCom; `seconds` is how long it took."""

    stage: str
    use_case: str
    key: str
    state: State
    digest: str = ""
    reason: str = ""
    reused: bool = False
    seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)
    effects: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the report without the stage's outputs, as plain values."""
        return {
            "stage": self.stage,
            "use_case": self.use_case,
            "key": self.key,
            "state": self.state,
            "digest": self.digest,
            "reason": self.reason,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
        }


class Prepared(NamedTuple):
    """A partition that is ready to be computed: what the answer depends on is known."""

    context: StageContext
    memo_key: str
    inputs: list[Input]


def load_stage(name: str) -> Stage:
    """Return a stage by its name; errors of its engines come out of it in our words.

    Raises:
        ConfigError: there is no such stage.
    """
    if name not in STAGES:
        raise ConfigError(f"{name!r} is no stage; stages are {', '.join(STAGES)}")
    stage: Stage = importlib.import_module(ENTRY[name]).STAGE
    return guarded(stage)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A stage that is run for a use case: on whose behalf, and at which moment.

    `owner` and `attempt` say who holds the leases, `actor` who is named in the audit log.
    """

    stage: Stage
    use_case: UseCase
    settings: Settings
    records: Records
    owner: str
    attempt: int
    actor: str
    started: datetime
    options: Mapping[str, Any]

    @classmethod
    def begin(
        cls,
        stage: str,
        use_case: str,
        *,
        settings: Settings,
        owner: str = "",
        attempt: int = 1,
        actor: str = "cli",
        started: datetime | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Look up a stage and a use case by their names; `started` None is now.

        Raises:
            ConfigError: there is no such stage or use case.
        """
        limit_memory(settings.memory_limit, settings.home / "spill")
        prepare_copies(settings)
        return cls(
            stage=load_stage(stage),
            use_case=find(use_case, settings.usecase_dirs),
            settings=settings,
            records=task_records(settings),
            owner=owner or f"cli@{socket.gethostname()}:{time.monotonic_ns()}",
            attempt=attempt,
            actor=actor,
            started=started or utc_now(),
            options=options or {},
        )

    @cached_property
    def code(self) -> str:
        """Digest of the code that the stage runs."""
        return memo.code_digest(ENTRY[self.stage.name])

    @cached_property
    def fields(self) -> str:
        """Digest of the fields of the use case that the stage reads.

        Raises:
            ConfigError: the use case declares what no stage could hold.
        """
        check_declared(self.use_case)
        return memo.fields_digest(self.use_case, self.stage.fields)

    def context(
        self,
        key: str,
        lease: Lease | None = None,
        *,
        partition: Partition | None = None,
        lake: Lake | None = None,
        preloaded: dict[tuple[str, str], StageResult] | None = None,
        answers: dict[str, Any] | None = None,
        rehearsal: bool = False,
    ) -> StageContext:
        """Return the context of a partition; without a lease the stage is only asked.

        `partition`, `lake`, `preloaded` and `answers` are for many partitions in one pass, which
        share the last three.

        Raises:
            ConfigError: the partition is not on record, or is none of the use case.
        """
        period = partitions.period(self.use_case, key)
        partition = partition or self.records.partitions.get(self.use_case.name, key)
        if partition is None:
            raise ConfigError(
                f"partition {key} of {self.use_case.name} is not recorded; start it by "
                "ingest_data, load_history or `evergreen run`"
            )
        return StageContext(
            settings=self.settings,
            use_case=self.use_case,
            period=period,
            lake=lake or (RehearsalLake if rehearsal else Lake)(self.settings.lake_root),
            records=self.records,
            lease=lease,
            mode=partition.mode,
            target=partition.target,
            actor=self.actor,
            started=self.started,
            options=self.options,
            rehearsal=rehearsal,
            preloaded=preloaded,
            preloaded_stages=DATA_STAGES,
            answers={} if answers is None else answers,
        )

    def prepare(self, context: StageContext) -> Prepared:
        """Ask the stage what it reads, and take the memo key over that.

        Raises:
            MissingPartition: something that it reads is not recorded.
            ConfigError: the use case declares what no stage could hold.
        """
        fields = self.fields  # first: it refuses what the stage could not hold
        inputs = self.stage.inputs(context)
        memo_key = memo.key_of(
            stage=self.stage.name,
            code=self.code,
            fields=fields,
            libraries=self.stage.libraries,
            inputs=[(item.table, item.key, item.digest) for item in inputs],
            options=dict(context.options),
        )
        return Prepared(context, memo_key, inputs)

    def find_answers(self, prepared: Sequence[Prepared]) -> dict[str, StageResult]:
        """Return, by key, the records that answer for their partitions: nothing has changed."""
        if not self.stage.memoised:
            return {}
        unchanged: list[tuple[StageContext, StageResult]] = []
        for context, memo_key, _ in prepared:
            result = context.result(self.stage.name)
            if (
                result is not None
                and result.state not in UNMEMOISED
                and result.memo_key == memo_key
            ):
                unchanged.append((context, result))
        if self.stage.still_valid is None or not unchanged:
            return {context.key: result for context, result in unchanged}
        valid = self.stage.still_valid(unchanged)
        return {context.key: result for context, result in unchanged if context.key in valid}

    def commit(self, prepared: Prepared, outcome: Outcome, began: float) -> None:
        """Record what a partition came to; `began` is when that was begun (`time.monotonic`).

        Raises:
            Busy: the lease is lost; nothing was written.
        """
        context = prepared.context
        result = self.result_of(prepared, outcome, began)
        self.records.results.commit(
            context.held, result, entries=outcome.entries, in_transaction=outcome.in_transaction
        )
        if context.preloaded is not None:
            context.preloaded[self.stage.name, context.key] = result

    def result_of(self, prepared: Prepared, outcome: Outcome, began: float) -> StageResult:
        """Return the result that records an outcome; `began` is when it was begun."""
        context, memo_key, inputs = prepared
        inputs = list(outcome.inputs) or inputs  # a stage may have read less than it asked for
        return self._result(context, outcome, memo_key, inputs, began)

    def record_refusal(self, context: StageContext, error: EvergreenError, began: float) -> None:
        """Put a refusal on record; it never replaces what the stage came to before."""
        if isinstance(error, Busy):  # whoever is at work records it
            return
        name, kind, reason = self.stage.name, type(error).__name__, str(error)[:2000]
        entry = audit_entry(
            context, "stage.refused", {"stage": name, "error": kind, "reason": reason}
        )
        recorded = self.records.results.get(context.use_case.name, context.key, name)
        if recorded is not None and recorded.state not in REPLACEABLE:
            self.records.audit.append(entry)
            return
        outcome = Outcome("failed", "", reason, {"error": kind})
        self.records.results.commit(
            context.held, self._result(context, outcome, "", (), began), entries=(entry,)
        )

    def report(
        self,
        key: str,
        outcome: Outcome,
        *,
        reused: bool = False,
        seconds: float = 0.0,
        effects: dict[str, Any] | None = None,
    ) -> Report:
        """Return the report of a partition."""
        return Report(
            stage=self.stage.name,
            use_case=self.use_case.name,
            key=key,
            state=outcome.state,
            digest=outcome.digest,
            reason=outcome.reason,
            reused=reused,
            seconds=seconds,
            outputs=outcome.outputs,
            effects=effects or {},
        )

    def _result(
        self,
        context: StageContext,
        outcome: Outcome,
        memo_key: str,
        inputs: Sequence[Input],
        began: float,
    ) -> StageResult:
        return StageResult(
            use_case=context.use_case.name,
            key=context.key,
            stage=self.stage.name,
            state=outcome.state,
            digest=outcome.digest,
            reason=outcome.reason,
            outputs=outcome.outputs,
            reads=[[item.table, item.key, item.digest] for item in inputs],
            memo_key=memo_key,
            mode=context.mode,
            started_at=context.started,
            finished_at=utc_now(),
            seconds=time.monotonic() - began,
            git_commit=provenance.git_commit(),
            token=context.held.token,
        )


def outcome_of(result: StageResult) -> Outcome:
    """Return the outcome that a result was recorded from."""
    return Outcome(
        cast(State, result.state),
        result.digest,
        result.reason,
        result.outputs,
        tuple(Input(*read) for read in result.reads),
    )


def audit_entry(context: StageContext, action: str, details: dict[str, Any]) -> AuditEntry:
    """Return an entry about the partition of a context."""
    return AuditEntry(
        action=action,
        use_case=context.use_case.name,
        subject=context.key,
        actor=context.actor,
        details=details,
        at=context.started,
    )
