"""What a task does: run a stage or load its history, tell, and announce what came of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import Asset, get_current_context
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from include.config.settings import settings
from include.config.use_case_file import find
from include.errors import ConfigError, Conflict, SourceError
from include.orchestration.runs import actor, owner_of, run_key
from include.pipeline.flow import RELEASING

if TYPE_CHECKING:
    from include.pipeline.execution import Report


log = logging.getLogger(__name__)

LEASE_WAIT = 120.0
NICENESS = 10
TOLD = ("verdict", "version", "bento_tag", "champion")


def run_stage(
    stage: str,
    use_case: str,
    *,
    emits: Asset | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a stage for the run's partition and emit its asset; return the report without the stage's
    outputs.

    Raises: as `stage_report` and `finish`.
    """
    return finish(stage_report(stage, use_case, options=options), emits=emits)


def stage_report(stage: str, use_case: str, *, options: Mapping[str, Any] | None = None) -> Report:
    """Run a stage for the run's partition.

    Raises: AirflowSkipException: the stage's judgement was overtaken, and the candidate is being
        judged again.
    """
    from include.pipeline import runner

    give_way()
    context = get_current_context()
    key = run_key(use_case, context)
    try:
        return runner.run(
            stage,
            use_case,
            key,
            settings=settings(),
            owner=owner_of(context),
            attempt=context["ti"].try_number,
            actor=actor(context),
            force=bool(context["params"].get("force", False)),
            options=options,
            wait=LEASE_WAIT,
        )
    except Conflict as error:
        from include.orchestration import healing

        if not healing.judge_again(settings(), use_case, key, error, actor=actor(context)):
            raise
        context["ti"].xcom_push(key="reason", value=str(error))
        raise AirflowSkipException(f"it is judged again: {error}") from None


def load_stage(stage: str, use_case: str) -> dict[str, Any]:
    """Run a data stage over the range of the form, in one pass; return how many partitions came
    to what.
    """
    from include.pipeline import history

    give_way()
    context = get_current_context()
    described = find(use_case, settings().usecase_dirs)
    params = context["params"]
    keys = history.plan(
        described, params.get("first"), params.get("last"), context["dag_run"].run_after
    )[stage]
    return history.load(
        stage,
        settings(),
        use_case,
        keys,
        owner=owner_of(context),
        attempt=context["ti"].try_number,
        actor=actor(context),
    )


def give_way() -> None:
    """Let the task's computation yield to the scheduler and to the serving node, which share the
    machine's cores with it.
    """
    os.nice(max(0, NICENESS - os.nice(0)))


def fill_gap(use_case: str) -> dict[str, Any]:
    """Record what the run's partition is meant for; if it is live, load the days before it that
    nobody ran.
    """
    from include.pipeline import history, intake

    context = get_current_context()
    key, who = run_key(use_case, context), actor(context)
    run_type = str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type))
    mode, target = intake.intake(settings(), use_case, key, run_type=run_type, actor=who)
    told: dict[str, Any] = {"key": key, "mode": mode, "target": target}
    if mode == "live":
        give_way()
        told |= history.load_gap(
            settings(),
            use_case,
            key,
            owner=owner_of(context),
            attempt=context["ti"].try_number,
            actor=who,
        )
    return told


def announce_result(stage: str, use_case: str, *, emits: Asset) -> dict[str, Any]:
    """Emit what is recorded of a stage, also where it was skipped, so that the next DAG can say
    why.
    """
    from include.records.records import Records

    context = get_current_context()
    key = run_key(use_case, context)
    row = Records.open(settings().records_address).results.get(use_case, key, stage)
    if row is None:
        raise ConfigError(
            f"{stage} of {use_case} {key} is not recorded; clear the task before this one"
        )
    told = {
        "stage": stage,
        "key": key,
        "state": row.state,
        "reason": row.reason,
        "digest": row.digest,
    }
    told |= {name: row.outputs[name] for name in TOLD if name in row.outputs}
    emit(emits, key, told)
    return told


def leave_out(task_id: str, told: Mapping[str, Any]) -> NoReturn:
    """End the running task well, with `told` as its XCom, and skip the one after it without a
    process of its own.

    Raises:
        DownstreamTasksSkipped: always; that is how Airflow is told.
    """
    get_current_context()["ti"].xcom_push(key="return_value", value=dict(told))
    raise DownstreamTasksSkipped(tasks=[task_id])  # type: ignore[no-untyped-call]


def finish(report: Report, *, emits: Asset | None = None) -> dict[str, Any]:
    """End a task as its stage ended: emit, skip with the reason, or fail.

    Raises:
        AirflowSkipException: there was nothing to do for the stage, with the reason.
        SourceError: the data is blocked.
    """
    summary = report.summary()
    context = get_current_context()
    if report.state == "blocked":
        raise SourceError(report.reason)
    if report.state == "skipped" or (report.state == "held" and report.stage in RELEASING):
        log.info("nothing to do: %s", report.reason)
        context["ti"].xcom_push(key="reason", value=report.reason)
        raise AirflowSkipException(report.reason)
    if emits is not None:
        told = {name: report.outputs[name] for name in TOLD if name in report.outputs}
        emit(emits, report.key, {**summary, **told})
    return summary


def emit(asset: Asset, key: str, extra: Mapping[str, Any]) -> None:
    """Put a partition's key and what is known of it on the event that the running task emits on
    its success.
    """
    context = get_current_context()
    event = context["outlet_events"][asset]
    event.extra = dict(extra)
    if context["dag_run"].partition_key is None:
        event.add_partitions(key)
