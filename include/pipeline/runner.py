"""Run a stage for one partition, or for a range: lease, memo, computation, record, effects.

Stages are loaded by the modules that `flow` names. Only computation is memoised: effects are
compared with the observed state every time, and only for live partitions.
"""

from __future__ import annotations

import importlib
import logging
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.errors import Busy, ConfigError, EvergreenError, MissingPartition
from include.lake.tables import Lake, RehearsalLake
from include.pipeline import declared, memo, provenance
from include.pipeline.engines import guarded
from include.pipeline.flow import DATA_STAGES, ENTRY, STAGES
from include.pipeline.stage import Input, Outcome, Stage, StageContext, State, lost
from include.pipeline.unseen import UNSEEN
from include.point_in_time import partitions
from include.records.audit import AuditEntry
from include.records.records import Lease, Partition, Records, StageResult

log = logging.getLogger(__name__)

# Nothing was found yet: such a record never answers for a partition.
UNMEMOISED = ("failed", "waiting", "unreadable")
REPLACEABLE = ("failed", "waiting")  # by a refusal, which never replaces a finding


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to, small enough for XCom."""

    stage: str
    use_case: str
    key: str
    state: State
    digest: str
    reason: str
    reused: bool
    seconds: float
    outputs: dict[str, Any]
    effects: dict[str, Any]

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


def stage_of(name: str) -> Stage:
    """Return a stage by its name, behind what tells engines' errors in our words."""
    if name not in STAGES:
        raise ConfigError(f"{name!r} is no stage; stages are {', '.join(STAGES)}")
    stage: Stage = importlib.import_module(ENTRY[name]).STAGE
    return guarded(stage)


def run(
    name: str,
    use_case_name: str,
    key: str,
    *,
    settings: Settings,
    owner: str = "",
    attempt: int = 1,
    actor: str = "cli",
    force: bool = False,
    options: Mapping[str, Any] | None = None,
    wait: float = 0.0,
    started: datetime | None = None,
) -> Report:
    """Run one stage for one partition and record what it came to.

    The partition's mode and target must be recorded (`records.partitions.raise_to`) before. `owner`
    and `attempt` say who runs: a later attempt of the same owner takes the lease over. `wait` is
    how long (seconds) to wait for another holder, `started` the moment of the run (None: now): what
    a source holds counts as seen then.

    Raises:
        EvergreenError: the stage refused; the refusal is on the audit record.
    """
    stage, use_case = stage_of(name), find(use_case_name, settings.usecase_dirs)
    records = Records.open(settings.records_address)
    started, clock, owner = started or utc_now(), time.monotonic(), owner or _owner()
    lease = records.leases.claim(
        use_case.name,
        name,
        key,
        owner=owner,
        attempt=attempt,
        ttl=settings.lease_seconds,
        wait=wait,
    )
    with lease:
        context = _context(
            settings, use_case, key, records, lease, actor, started, options or {}, rehearsal=force
        )
        try:
            recorded, code = context.result(name), _code(stage)
            memo_key, inputs = _memo_key(stage, context, code)
            if force:
                return _rehearse(stage, context, recorded, clock)
            _renew(stage, [context], code, owner=owner, attempt=attempt)
            hit = _hits(stage, [(context, recorded, memo_key)]).get(key)
            if hit is not None:
                outcome = _recorded(hit)
            else:
                outcome = _computed(stage, context)
                _commit(context, stage, outcome, memo_key, inputs, clock)
            did = _effects(stage, context, outcome)
        except EvergreenError as error:
            _refuse(context, stage, error, clock)
            raise
    seconds = time.monotonic() - clock
    log.info(
        "%s %s %s: %s%s in %.2f s",
        name,
        use_case.name,
        key,
        outcome.state,
        " (reused)" if hit else "",
        seconds,
    )
    reused = hit is not None
    return Report(
        name,
        use_case.name,
        key,
        outcome.state,
        outcome.digest,
        outcome.reason,
        reused,
        seconds,
        outcome.outputs,
        did,
    )


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
    """Run a data stage for many partitions in one scan, each recorded alone; yield a report a
    partition.

    Partitions that are unchanged are answered from the record, first; a blocked one stops itself,
    not the range.
    """
    stage, use_case = stage_of(name), find(use_case_name, settings.usecase_dirs)
    if stage.compute_range is None:
        raise ConfigError(
            f"{name} takes one partition at a time; ranges are for {', '.join(DATA_STAGES)}"
        )
    records = Records.open(settings.records_address)
    known = {
        (row.stage, row.key): row for row in records.results.of(use_case.name, stage=DATA_STAGES)
    }
    contexts: list[StageContext] = []
    memo_keys: dict[str, tuple[str, list[Input]]] = {}
    code, owner = _code(stage), owner or _owner()
    rows = {row.key: row for row in records.partitions.of(use_case.name)}
    lake = Lake(settings.lake_root)
    with records.leases.claim_all(
        use_case.name, name, keys, owner=owner, attempt=attempt, ttl=settings.lease_seconds
    ) as leases:
        for key in keys:
            clock = time.monotonic()
            row = rows.get(key)
            context = _context(
                settings,
                use_case,
                key,
                records,
                leases.each[key],
                actor,
                started or utc_now(),
                options or {},
                lake=lake,
                known=known,
                row=row,
            )
            try:
                memo_key, inputs = _memo_key(stage, context, code)
            except MissingPartition as error:
                _refuse(context, stage, error, clock)
                yield Report(name, use_case.name, key, "failed", "", str(error), False, 0.0, {}, {})
                continue
            memo_keys[key] = (memo_key, inputs)
            contexts.append(context)
        if contexts:
            _renew(stage, contexts, code, owner=owner, attempt=attempt)
        hits = _hits(
            stage,
            [(context, context.result(name), memo_keys[context.key][0]) for context in contexts],
        )
        for key, recorded in hits.items():
            hit = _recorded(recorded)
            yield Report(
                name,
                use_case.name,
                key,
                hit.state,
                hit.digest,
                hit.reason,
                True,
                0.0,
                hit.outputs,
                {},
            )
        contexts = [context for context in contexts if context.key not in hits]
        clock = time.monotonic()
        for context, computed in stage.compute_range(contexts) if contexts else ():
            memo_key, inputs = memo_keys[context.key]
            outcome = _commit_alone(context, stage, computed, memo_key, inputs, clock)
            seconds = time.monotonic() - clock
            yield Report(
                name,
                use_case.name,
                context.key,
                outcome.state,
                outcome.digest,
                outcome.reason,
                False,
                seconds,
                outcome.outputs,
                {},
            )
            clock = time.monotonic()


def outdated(
    name: str, use_case: UseCase, key: str, settings: Settings, records: Records
) -> list[str]:
    """Return the earlier partitions that a run of a stage for `key` would first compute again;
    nothing is claimed or written.
    """
    stage, row = stage_of(name), records.partitions.get(use_case.name, key)
    if stage.outdated is None:
        return []
    row = row or Partition(use_case.name, key, "backfill", "data", "", utc_now())
    return stage.outdated(
        [_context(settings, use_case, key, records, None, "", utc_now(), {}, row=row)]
    )


def _renew(
    stage: Stage, contexts: Sequence[StageContext], code: str, *, owner: str, attempt: int
) -> None:
    """Compute again, in one pass, the earlier partitions that were made by other rules than
    today's.

    One that comes out equal only gets the new memo key; another is replaced, which is audited.
    Mode, target and live effects stay. A partition that somebody else is at work on is left to
    them.
    """
    keys = stage.outdated(contexts) if stage.outdated is not None else []
    if not keys or stage.compute_range is None:
        return
    first = contexts[0]
    name, settings = first.use_case.name, first.settings
    rows = {row.key: row for row in first.records.partitions.of(name)}
    with first.records.leases.claim_all(
        name,
        stage.name,
        keys,
        owner=owner,
        attempt=attempt,
        ttl=settings.lease_seconds,
        only_free=True,
    ) as leases:
        again: dict[str, tuple[StageContext, str, list[Input]]] = {}
        for key, lease in sorted(leases.each.items()):
            context = _context(
                settings,
                first.use_case,
                key,
                first.records,
                lease,
                first.actor,
                first.started,
                {},
                lake=first.lake,
                known=first.known,
                row=rows.get(key),
            )
            try:
                again[key] = (context, *_memo_key(stage, context, code))
            except MissingPartition as error:
                log.info("%s %s %s stays as it is: %s", stage.name, name, key, error)
        differing, clock = 0, time.monotonic()
        for context, outcome in (
            stage.compute_range([context for context, _, _ in again.values()]) if again else ()
        ):
            _, memo_key, inputs = again[context.key]
            before, entries = context.result(stage.name), outcome.entries
            if before is not None and (before.digest, before.state) != (
                outcome.digest,
                outcome.state,
            ):
                details = {
                    "stage": stage.name,
                    "reason": "rules changed",
                    "was": before.digest,
                    "is": outcome.digest,
                }
                entries = (*entries, _entry(context, "partition.recomputed", details))
            done = _commit_alone(
                context, stage, replace(outcome, entries=entries), memo_key, inputs, clock
            )
            differing += len(entries) > len(outcome.entries) and not done.lost
            clock = time.monotonic()
    log.info(
        "%s %s: rules changed, %d partitions computed again, %d differ",
        stage.name,
        name,
        len(again),
        differing,
    )


def _context(
    settings: Settings,
    use_case: UseCase,
    key: str,
    records: Records,
    lease: Lease | None,
    actor: str,
    started: datetime,
    options: Mapping[str, Any],
    *,
    rehearsal: bool = False,
    lake: Lake | None = None,
    known: dict[tuple[str, str], StageResult] | None = None,
    row: Partition | None = None,
) -> StageContext:
    period = partitions.period(use_case, key)
    row = row or records.partitions.get(use_case.name, key)
    if row is None:
        raise ConfigError(
            f"partition {key} of {use_case.name} is not recorded; start it by ingest_data, "
            "load_history or `evergreen run`"
        )
    lake = lake or (RehearsalLake if rehearsal else Lake)(settings.lake_root)
    return StageContext(
        settings=settings,
        use_case=use_case,
        period=period,
        lake=lake,
        records=records,
        lease=lease,
        mode=row.mode,
        target=row.target,
        actor=actor,
        started=started,
        options=options,
        rehearsal=rehearsal,
        known=known,
    )


def _code(stage: Stage) -> str:
    return memo.code_digest(ENTRY[stage.name])


def _memo_key(stage: Stage, context: StageContext, code: str) -> tuple[str, list[Input]]:
    declared.refuse(context.use_case)
    inputs = stage.inputs(context)
    key = memo.memo_key(
        stage=stage.name,
        code=code,
        use_case=context.use_case,
        fields=stage.fields,
        libraries=stage.libraries,
        inputs=[(read.table, read.key, read.digest) for read in inputs],
        options=dict(context.options),
    )
    return key, inputs


def _hits(
    stage: Stage, asked: Sequence[tuple[StageContext, StageResult | None, str]]
) -> dict[str, StageResult]:
    """Return the records that answer for their partitions, by key; `asked` are works with their
    records and memo keys.
    """
    if not stage.memoised:
        return {}
    same = [
        (context, row)
        for context, row, key in asked
        if row is not None and row.state not in UNMEMOISED and row.memo_key == key
    ]
    kept = (
        {context.key for context, _ in same}
        if stage.still_valid is None or not same
        else stage.still_valid(same)
    )
    return {context.key: row for context, row in same if context.key in kept}


def _recorded(result: StageResult) -> Outcome:
    return Outcome(
        cast(State, result.state),
        result.digest,
        result.reason,
        result.outputs,
        tuple(Input(*read) for read in result.reads),
    )


def _commit(
    context: StageContext,
    stage: Stage,
    outcome: Outcome,
    memo_key: str,
    inputs: Sequence[Input],
    clock: float,
) -> None:
    used = outcome.inputs or tuple(inputs)
    result = _result(context, stage.name, outcome, memo_key, used, clock)
    context.records.results.commit(
        context.held, result, entries=outcome.entries, in_transaction=outcome.in_transaction
    )
    if context.known is not None:
        context.known[stage.name, context.key] = result


def _commit_alone(
    context: StageContext,
    stage: Stage,
    outcome: Outcome,
    memo_key: str,
    inputs: Sequence[Input],
    clock: float,
) -> Outcome:
    """Record one partition of several; where its lease is lost whoever took it records it, and
    the others go on.
    """
    if not outcome.lost:
        try:
            _commit(context, stage, outcome, memo_key, inputs, clock)
        except Busy as error:
            outcome = lost(error)
    if outcome.lost:
        log.warning("%s", outcome.reason)
    return outcome


def _result(
    context: StageContext,
    name: str,
    outcome: Outcome,
    memo_key: str,
    inputs: Sequence[Input],
    clock: float,
) -> StageResult:
    return StageResult(
        use_case=context.use_case.name,
        key=context.key,
        stage=name,
        state=outcome.state,
        digest=outcome.digest,
        reason=outcome.reason,
        outputs=outcome.outputs,
        reads=[[read.table, read.key, read.digest] for read in inputs],
        memo_key=memo_key,
        mode=context.mode,
        started_at=context.started,
        finished_at=utc_now(),
        seconds=time.monotonic() - clock,
        git_commit=provenance.git_commit(),
        token=context.held.token,
    )


def _computed(stage: Stage, context: StageContext) -> Outcome:
    """Compute, and let a stage that judges say so where it could not read what its verdict rests
    on.
    """
    if stage.unreadable is None:
        return stage.compute(context)
    try:
        return stage.compute(context)
    except UNSEEN as error:
        log.warning(
            "%s %s %s: unreadable: %s", stage.name, context.use_case.name, context.key, error
        )
        return stage.unreadable(context, error)


def _effects(stage: Stage, context: StageContext, outcome: Outcome) -> dict[str, Any]:
    if stage.effects is None or context.mode != "live" or outcome.state == "unreadable":
        return {}
    return stage.effects(context, outcome)


def _rehearse(
    stage: Stage, context: StageContext, recorded: StageResult | None, clock: float
) -> Report:
    """Compute beside the record and compare, and so what the lake holds; one audit row, and a
    difference is an error.
    """
    if recorded is None or recorded.state in UNMEMOISED:
        raise ConfigError(
            f"{stage.name} {context.key} has no record to compare with; run it without force first"
        )
    outcome = stage.compute(context)
    same = outcome.digest == recorded.digest and outcome.state == recorded.state
    details: dict[str, Any] = {
        "stage": stage.name,
        "recorded": recorded.digest,
        "computed": outcome.digest,
        "equal": same,
    }
    other = stored_otherwise(stage, context, recorded)
    details |= {"stored_otherwise": other} if other else {}
    context.records.audit.append(_entry(context, "force.compared", details))
    if other:
        raise EvergreenError(
            f"{stage.name} {context.use_case.name} {context.key}: the lake holds other rows than "
            f"are recorded: {', '.join(other)}. Run the stage again after a change of the use "
            "case or with a restatement, or restore the table's files"
        )
    if not same:
        raise EvergreenError(
            f"{stage.name} {context.use_case.name} {context.key}: computed again it gives "
            f"{outcome.digest} ({outcome.state}), recorded is {recorded.digest} "
            f"({recorded.state}); the record stands. Look for changed code, libraries or data."
        )
    seconds = time.monotonic() - clock
    return Report(
        stage.name,
        context.use_case.name,
        context.key,
        outcome.state,
        outcome.digest,
        "equal to the record",
        False,
        seconds,
        {},
        {},
    )


def stored_otherwise(stage: Stage, context: StageContext, recorded: StageResult) -> list[str]:
    """Return the `table partition` of a recorded result whose rows in the lake have another
    digest than the record says.
    """
    if stage.read_back is None or recorded.state not in ("done", "blocked"):
        return []
    return sorted(
        f"{one.table} {one.key}"
        for one in stage.read_back(context, recorded)
        if one.recorded != one.found
    )


def _refuse(context: StageContext, stage: Stage, error: EvergreenError, clock: float) -> None:
    """Put a refusal on record; a recorded result is never replaced by one."""
    if isinstance(error, Busy):
        return
    entry = _entry(
        context,
        "stage.refused",
        {"stage": stage.name, "error": type(error).__name__, "reason": str(error)[:2000]},
    )
    recorded = context.records.results.get(context.use_case.name, context.key, stage.name)
    if recorded is None or recorded.state in REPLACEABLE:
        failed = Outcome("failed", "", str(error)[:2000], {"error": type(error).__name__})
        context.records.results.commit(
            context.held, _result(context, stage.name, failed, "", (), clock), entries=(entry,)
        )
        return
    context.records.audit.append(entry)


def _entry(context: StageContext, action: str, details: dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        action=action,
        use_case=context.use_case.name,
        subject=context.key,
        actor=context.actor,
        details=details,
        at=context.started,
    )


def _owner() -> str:
    return f"cli@{socket.gethostname()}:{time.monotonic_ns()}"


__all__ = ["STAGES", "Input", "Outcome", "Report", "StageContext", "run", "run_range", "stage_of"]
