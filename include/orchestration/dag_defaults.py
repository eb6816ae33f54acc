"""What all DAGs share: defaults, forms, the partition of a run, and how a task runs a stage and emits its event."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import Asset, CronPartitionTimetable, ExceptionRetryPolicy, Param, RetryAction, RetryRule, get_current_context
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from include.config.settings import settings
from include.config.use_case import UseCase
from include.config.use_case_file import files, find
from include.errors import ConfigError, Conflict, SourceError
from include.orchestration.callbacks import on_failure
from include.pipeline.flow import RELEASING
from include.point_in_time import partitions

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.pipeline.runner import Report

log = logging.getLogger(__name__)

START = datetime(2000, 1, 1, tzinfo=UTC)
CRON = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
PASSING: list[type[BaseException] | str] = ["include.errors.Busy", "include.errors.Conflict", "include.errors.Unavailable"]
NETWORK: list[type[BaseException] | str] = [
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "httpx.TransportError",
    "sqlalchemy.exc.OperationalError",
]
RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=PASSING, action=RetryAction.RETRY, retry_delay=timedelta(seconds=10), reason="may pass"),
        RetryRule(exception=NETWORK, action=RetryAction.RETRY, retry_delay=timedelta(seconds=20), reason="connection"),
        RetryRule(exception="include.errors.EvergreenError", action=RetryAction.FAIL, reason="a retry cannot change it"),
    ]
)
DEFAULT_ARGS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=5),
    "retry_policy": RETRIES,
    "on_failure_callback": on_failure,
    "execution_timeout": timedelta(hours=6),
}
LEASE_WAIT = 120.0
NICENESS = 10
TOLD = ("verdict", "version", "bento_tag", "champion")


def use_cases() -> list[UseCase]:
    """Return the use cases whose files are right; `dags/use_cases.py` reports the others."""
    return _read_all()[0]


def broken_use_cases() -> list[str]:
    """Return what is wrong with the use case files that cannot be read."""
    return _read_all()[1]


def _read_all() -> tuple[list[UseCase], list[str]]:
    found: dict[str, UseCase] = {}
    problems: list[str] = []
    folders = settings().usecase_dirs
    for path in files(folders):
        try:
            found.setdefault(path.stem, find(path.stem, folders))
        except ConfigError as error:
            problems.append(str(error))
    return list(found.values()), problems


def common(use_case: UseCase, name: str, doc: str | None) -> dict[str, Any]:
    """Return the arguments of `@dag` that no DAG file has to think about."""
    return {
        "dag_id": f"{use_case.name}__{name}",
        "dag_display_name": f"{use_case.name}: {name}",
        "description": (doc or "").strip().splitlines()[0],
        "doc_md": doc,
        "tags": ["evergreen", use_case.name, name],
        "default_args": {**DEFAULT_ARGS, "owner": use_case.owner},
        "is_paused_upon_creation": False,
    }


def form(use_case: UseCase, **more: Param) -> dict[str, Param]:
    """Return the form of a stage's DAG: the partition's date on top, then `force`, then what else it has."""
    date = Param(
        None,
        type=["null", "string"],
        format="date",
        title="Partition",
        description=f"First day of the {use_case.cadence}. Empty: the newest complete partition.",
    )
    force = Param(
        False,
        type="boolean",
        title="Force",
        description="Compute again beside the record and compare; a difference fails the task, the record stands.",
    )
    return {"partition": date, **more, "force": force}


def ticking(use_case: UseCase) -> CronPartitionTimetable:
    """Return the schedule of a use case: one tick at the end of each period, keyed by the period's first day."""
    return CronPartitionTimetable(CRON[use_case.cadence], timezone="UTC", run_offset=-1, key_format="%Y-%m-%d")


def scheduled_until(use_case: UseCase) -> datetime | None:
    """Return the end of the schedule: none for a history that goes on; a closed one has no scheduled run, only backfills."""
    return None if use_case.history.last is None else START


def use_case_of(dag_id: str) -> str:
    """Return the use case of a DAG."""
    return dag_id.partition("__")[0]


def run_key(use_case: str, context: Context) -> str:
    """Return the partition of a run: its own key, else the form's date, else the newest that was complete when it began.

    Raises:
        ConfigError: the key is none of this use case, or the form contradicts it, or nothing is complete yet.
    """
    run = context["dag_run"]
    chosen = (context.get("params") or {}).get("partition")
    if run.partition_key and chosen and run.partition_key != chosen:
        raise ConfigError(f"the run's partition key is {run.partition_key}, the form says {chosen}; give only one of them")
    described = find(use_case, settings().usecase_dirs)
    key = run.partition_key or chosen or partitions.newest_complete(described, run.run_after)
    if key is None:
        raise ConfigError(f"{use_case} has no complete partition yet; its history begins on {described.history.first}")
    return partitions.period(described, str(key)).key


def run_stage(
    stage: str, use_case: str, *, emits: Asset | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run a stage for the run's partition and emit its asset; return the report without the stage's outputs.

    Raises: as `stage_report` and `finish`.
    """
    return finish(stage_report(stage, use_case, options=options), emits=emits)


def stage_report(stage: str, use_case: str, *, options: Mapping[str, Any] | None = None) -> Report:
    """Run a stage for the run's partition.

    Raises:
        AirflowSkipException: the stage's judgement was overtaken, and the candidate is being judged again.
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
            owner=_owner(context),
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
    """Run a data stage over the range of the form, in one pass; return how many partitions came to what."""
    from include.pipeline import history

    give_way()
    context = get_current_context()
    described = find(use_case, settings().usecase_dirs)
    params = context["params"]
    keys = history.plan(described, params.get("first"), params.get("last"), context["dag_run"].run_after)[stage]
    return history.load(
        stage, settings(), use_case, keys, owner=_owner(context), attempt=context["ti"].try_number, actor=actor(context)
    )


def give_way() -> None:
    """Let the task's computation yield to the scheduler and to the serving node, which share the machine's cores with it."""
    os.nice(max(0, NICENESS - os.nice(0)))


def fill_gap(use_case: str) -> dict[str, Any]:
    """Record what the run's partition is meant for; if it is live, load the days before it that nobody ran."""
    from include.pipeline import history, intake

    context = get_current_context()
    key, who = run_key(use_case, context), actor(context)
    run_type = str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type))
    mode, target = intake.intake(settings(), use_case, key, run_type=run_type, actor=who)
    told: dict[str, Any] = {"key": key, "mode": mode, "target": target}
    if mode == "live":
        give_way()
        told |= history.load_gap(settings(), use_case, key, owner=_owner(context), attempt=context["ti"].try_number, actor=who)
    return told


def announce_result(stage: str, use_case: str, *, emits: Asset) -> dict[str, Any]:
    """Emit what is recorded of a stage, also where it was skipped, so that the next DAG can say why."""
    from include.records.records import Records

    context = get_current_context()
    key = run_key(use_case, context)
    row = Records.open(settings().records_address).result(use_case, key, stage)
    if row is None:
        raise ConfigError(f"{stage} of {use_case} {key} is not recorded; clear the task before this one")
    told = {"stage": stage, "key": key, "state": row.state, "reason": row.reason, "digest": row.digest}
    told |= {name: row.outputs[name] for name in TOLD if name in row.outputs}
    emit(emits, key, told)
    return told


def leave_out(task_id: str, told: Mapping[str, Any]) -> NoReturn:
    """End the running task well, with `told` as its XCom, and skip the one after it without a process of its own.

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
    """Put a partition's key and what is known of it on the event that the running task emits on its success."""
    context = get_current_context()
    event = context["outlet_events"][asset]
    event.extra = dict(extra)
    if context["dag_run"].partition_key is None:
        event.add_partitions(key)


def actor(context: Context) -> str:
    """Return who started the run, for the audit log."""
    run = context["dag_run"]
    return f"airflow:{run.triggering_user_name or getattr(run.run_type, 'value', run.run_type)}"


def _owner(context: Context) -> str:
    run, instance = context["dag_run"], context["ti"]
    return f"airflow:{run.dag_id}/{run.run_id}/{instance.task_id}"
