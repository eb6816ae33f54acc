"""Run a stage for one partition: lease, memo, computation, record, effects.

Stages are loaded by the modules that `flow` names. Only computation is memoised: effects are
compared with the observed state every time, and only for live partitions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from include.config.settings import Settings
from include.errors import ConfigError, EvergreenError
from include.pipeline.execution import UNMEMOISED, Execution, Report, audit_entry, outcome_of
from include.pipeline.ranges import renew_outdated
from include.pipeline.stage import Outcome, Stage, StageContext
from include.pipeline.unseen import UNSEEN
from include.records.records import StageResult

log = logging.getLogger(__name__)


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
    a source holds counts as seen then. `force` computes beside the record and compares.

    Raises:
        EvergreenError: the stage refused; the refusal is on the audit record.
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
    began = time.monotonic()
    lease = execution.records.leases.claim(
        execution.use_case.name,
        name,
        key,
        owner=execution.owner,
        attempt=attempt,
        ttl=settings.lease_seconds,
        wait=wait,
    )
    with lease:
        context = execution.context(key, lease, rehearsal=force)
        try:
            if force:
                return _rehearse(execution, context, began)
            outcome, reused = _compute_or_reuse(execution, context, began)
            effects = _bring_about(execution.stage, context, outcome)
        except EvergreenError as error:
            execution.record_refusal(context, error, began)
            raise
    report = execution.report(
        key, outcome, reused=reused, seconds=time.monotonic() - began, effects=effects
    )
    log.info(
        "%s %s %s: %s%s in %.2f s",
        name,
        execution.use_case.name,
        key,
        report.state,
        " (reused)" if reused else "",
        report.seconds,
    )
    return report


def _compute_or_reuse(
    execution: Execution, context: StageContext, began: float
) -> tuple[Outcome, bool]:
    """Return the outcome, and whether it is the recorded one; a computed one is recorded."""
    prepared = execution.prepare(context)
    renew_outdated(execution, [context])
    answer = execution.find_answers([prepared]).get(context.key)
    if answer is not None:
        return outcome_of(answer), True
    outcome = _compute(execution.stage, context)
    execution.commit(prepared, outcome, began)
    return outcome, False


def _compute(stage: Stage, context: StageContext) -> Outcome:
    """Compute; a stage that judges says so where it could not read what its verdict rests on."""
    if stage.unreadable is None:
        return stage.compute(context)
    try:
        return stage.compute(context)
    except UNSEEN as error:
        log.warning(
            "%s %s %s: unreadable: %s", stage.name, context.use_case.name, context.key, error
        )
        return stage.unreadable(context, error)


def _bring_about(stage: Stage, context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Bring the effects of a live partition about; what is as it should be is left alone."""
    if stage.effects is None or context.mode != "live" or outcome.state == "unreadable":
        return {}
    return stage.effects(context, outcome)


def _rehearse(execution: Execution, context: StageContext, began: float) -> Report:
    """Compute beside the record, compare, and compare what the lake holds; audit the comparison.

    Raises:
        ConfigError: there is no record to compare with.
        EvergreenError: record, computation and lake do not agree; the record stands.
    """
    stage = execution.stage
    recorded = context.result(stage.name)
    execution.prepare(context)  # refuses as a run would
    if recorded is None or recorded.state in UNMEMOISED:
        raise ConfigError(
            f"{stage.name} {context.key} has no record to compare with; run it without force first"
        )
    outcome = stage.compute(context)
    equal = outcome.digest == recorded.digest and outcome.state == recorded.state
    details: dict[str, Any] = {
        "stage": stage.name,
        "recorded": recorded.digest,
        "computed": outcome.digest,
        "equal": equal,
    }
    altered = find_altered_partitions(stage, context, recorded)
    details |= {"stored_otherwise": altered} if altered else {}
    execution.records.audit.append(audit_entry(context, "force.compared", details))
    subject = f"{stage.name} {context.use_case.name} {context.key}"
    if altered:
        raise EvergreenError(
            f"{subject}: the lake holds other rows than are recorded: {', '.join(altered)}. Run "
            "the stage again after a change of the use case or with a restatement, or restore the "
            "table's files"
        )
    if not equal:
        raise EvergreenError(
            f"{subject}: computed again it gives {outcome.digest} ({outcome.state}), recorded is "
            f"{recorded.digest} ({recorded.state}); the record stands. Look for changed code, "
            "libraries or data."
        )
    unwritten = Outcome(outcome.state, outcome.digest, "equal to the record")
    return execution.report(context.key, unwritten, seconds=time.monotonic() - began)


def find_altered_partitions(
    stage: Stage, context: StageContext, recorded: StageResult
) -> list[str]:
    """Return the `table partition` of a result whose rows in the lake have another digest."""
    if stage.read_back is None or recorded.state not in ("done", "blocked"):
        return []
    return sorted(
        f"{partition.table} {partition.key}"
        for partition in stage.read_back(context, recorded)
        if partition.recorded != partition.stored
    )
