"""Do what a task does: run a stage or load its history, and announce what came of it."""

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
from include.orchestration.runs import actor_of, owner_of, run_key
from include.pipeline.flow import RELEASING

if TYPE_CHECKING:
    from include.pipeline.execution import Report


log = logging.getLogger(__name__)

LEASE_WAIT = 120.0  # seconds that a task waits for another holder of its partition's lease
NICENESS = 10
ANNOUNCED = ("verdict", "version", "bento_tag", "champion")  # outputs that go on the event


def run_stage(
    stage: str,
    use_case: str,
    *,
    emits: Asset | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a stage for the run's partition, emit its asset, and return a short report.

    Raises: as `execute_stage` and `end_task`.
    """
    return end_task(execute_stage(stage, use_case, options=options), emits=emits)


def execute_stage(stage: str, use_case: str, *, options: Mapping[str, Any] | None = None) -> Report:
    """Run a stage for the run's partition.

    Raises:
        EvergreenError: the stage refused.
        AirflowSkipException: its judgement was overtaken, and the candidate is being judged again.
    """
    from include.pipeline import runner

    lower_priority()
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
            actor=actor_of(context),
            force=bool(context["params"].get("force", False)),
            options=options,
            wait=LEASE_WAIT,
        )
    except Conflict as error:
        from include.orchestration import healing

        if not healing.judge_again(settings(), use_case, key, error, actor=actor_of(context)):
            raise
        context["ti"].xcom_push(key="reason", value=str(error))
        raise AirflowSkipException(f"it is judged again: {error}") from None


def load_range(stage: str, use_case: str) -> dict[str, Any]:
    """Run a data stage over the range of the form, and return how many partitions came to what."""
    from include.pipeline import history

    lower_priority()
    context = get_current_context()
    params = context["params"]
    keys_by_stage = history.plan_load(
        find(use_case, settings().usecase_dirs),
        params.get("first"),
        params.get("last"),
        context["dag_run"].run_after,
    )
    return history.load_partitions(
        stage,
        settings(),
        use_case,
        keys_by_stage[stage],
        owner=owner_of(context),
        attempt=context["ti"].try_number,
        actor=actor_of(context),
    )


def lower_priority() -> None:
    """Let the scheduler and the serving node, which share the machine's cores, go first."""
    os.nice(max(0, NICENESS - os.nice(0)))  # nice adds to what is: a second call changes nothing


def prepare_partition(use_case: str) -> dict[str, Any]:
    """Record what the run's partition is meant for; if live, load the days that nobody ran.

    Those are the days between the newest ingested partition before it and the partition itself.
    """
    from include.pipeline import history, intake

    context = get_current_context()
    key, actor = run_key(use_case, context), actor_of(context)
    run_type = str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type))
    mode, target = intake.record_intake(settings(), use_case, key, run_type=run_type, actor=actor)
    summary: dict[str, Any] = {"key": key, "mode": mode, "target": target}
    if mode == "live":
        lower_priority()
        summary |= history.load_gap(
            settings(),
            use_case,
            key,
            owner=owner_of(context),
            attempt=context["ti"].try_number,
            actor=actor,
        )
    return summary


def announce_result(stage: str, use_case: str, *, emits: Asset) -> dict[str, Any]:
    """Emit what is recorded of a stage, also where it was skipped: the next DAG can say why."""
    from include.pipeline.task_records import task_records

    context = get_current_context()
    key = run_key(use_case, context)
    result = task_records(settings()).results.get(use_case, key, stage)
    if result is None:
        raise ConfigError(
            f"{stage} of {use_case} {key} is not recorded; clear the task before this one"
        )
    summary = {
        "stage": stage,
        "key": key,
        "state": result.state,
        "reason": result.reason,
        "digest": result.digest,
    } | _announced(result.outputs)
    emit_event(emits, key, summary)
    return summary


def skip_task(task_id: str, result: Mapping[str, Any]) -> NoReturn:
    """End the running task well, with `result` as its XCom, and skip the one after it.

    The scheduler skips it: no process is started for it.

    Raises:
        DownstreamTasksSkipped: always; that is how Airflow is told.
    """
    get_current_context()["ti"].xcom_push(key="return_value", value=dict(result))
    raise DownstreamTasksSkipped(tasks=[task_id])  # type: ignore[no-untyped-call]


def end_task(report: Report, *, emits: Asset | None = None) -> dict[str, Any]:
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
        emit_event(emits, report.key, {**summary, **_announced(report.outputs)})
    return summary


def _announced(outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: outputs[name] for name in ANNOUNCED if name in outputs}


def emit_event(asset: Asset, key: str, extra: Mapping[str, Any]) -> None:
    """Put a partition's key and its facts on the event that the running task's success emits."""
    context = get_current_context()
    event = context["outlet_events"][asset]
    event.extra = dict(extra)
    if context["dag_run"].partition_key is None:
        event.add_partitions(key)
