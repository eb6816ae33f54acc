"""Do what the tasks of `deploy_model` and `control_release` do with a release in steps."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import Asset, BaseOperator, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from include.clock import utc_now
from include.config.settings import settings
from include.errors import ArtefactError, ConfigError, Conflict
from include.orchestration.announcing import announce_missed, is_to_announce
from include.orchestration.queues import place_of_waits
from include.orchestration.runs import actor_of, owner_of, run_key
from include.orchestration.tasks import (
    emit_event,
    end_task,
    execute_stage,
    run_stage,
    skip_task,
)
from include.orchestration.triggers import PollTrigger, WaitForOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.config.use_case import UseCase

log = logging.getLogger(__name__)

STAGE = "deploy_model"
LONGEST = 400 * 86_400.0  # seconds: every step has a deadline of its own, but a pause has none
RETRIES = 20
AT_ONCE = ("first", "direct")  # plans without steps


class BeginOperator(BaseOperator):
    """Go on with a release that nodes have tried; while it is paused, wait without a worker slot.

    After a pause all is asked anew: what nodes say, and what past requests show.
    """

    def __init__(self, *, use_case: str, every: float, **options: Any) -> None:
        super().__init__(**options)
        self.use_case, self.every = use_case, every

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin it, and defer if it is paused."""
        return self._begin()

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Begin it after a pause."""
        return self._begin()

    def _begin(self) -> dict[str, Any]:
        result = run_stage(STAGE, self.use_case, options={"phase": "begin"})
        if _release_state(self.use_case, result["key"]) == "trying":
            self.log.info("%s", result["reason"])
            arguments = {"use_case": self.use_case, "key": result["key"]}
            call = "include.deployment.judge_release.unpaused"
            self.defer(
                trigger=PollTrigger(call, arguments, self.every, time.time() + LONGEST),
                method_name="resume",
            )
        return result


class JudgedStepOperator(WaitForOperator):
    """Judge a release each third of its beat, without a worker slot, until its step is over.

    The evidence stands in the log as a table. Where the release was aborted the task is skipped
    with the reason, where it was rolled back it fails. A step that the release did not take is
    skipped. The `last` step of the DAG is over when no step of the release is left.
    """

    def __init__(self, *, step: int | None, last: bool = False, **options: Any) -> None:
        super().__init__(
            call="include.deployment.judge_release.step_over",
            arguments={"step": step, "last": last},
            timeout=LONGEST,
            **options,
        )
        self.step, self.last = step, last

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the trigger's answer; wait on where this has become the last step meanwhile."""
        if self.last and event.get("state") == "running":
            return self.execute(context)
        return super().resume(context, event)

    def accept(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Show how the step ended, and end as it did."""
        from include.deployment.release_state import describe_state

        log.info("%s", describe_state(answer) if "says" in answer else answer["reason"])
        state = answer["state"]
        if state == "rolled_back":
            raise ArtefactError(str(answer["says"]))
        if state in ("aborted", "superseded", "none", "waiting"):
            _skip(answer.get("says") or answer["reason"])
        if self.step is not None and (answer["kind"] in AT_ONCE or answer["replayed"]):
            _skip("the release takes no steps: " + str(answer["says"]))
        return answer


def begin_task(use_case: UseCase) -> BeginOperator:
    """Return the task that begins a release once nodes have tried it."""
    return BeginOperator(
        task_id="begin",
        use_case=use_case.name,
        every=use_case.release.beat.total_seconds() / 3,
    )


def step_tasks(use_case: UseCase) -> list[JudgedStepOperator]:
    """Return the tasks of the steps of the use case's plan, one a step.

    A release goes by the plan that was recorded with it: a step that this has more is judged by the
    last task. So a use case without steps has a task too, for the release that began before.
    """
    from include.deployment.release_plan import ReleasePlan

    plan = ReleasePlan.of(use_case)
    if not plan.steps:
        return [_judged(use_case, "steps", 0, plan.beat, last=True)]
    return [
        _judged(
            use_case,
            f"share_{step.share / 100:g}".replace(".", "_") if step.share else "shadow",
            number,
            plan.beat,
            last=number + 1 == len(plan.steps),
        )
        for number, step in enumerate(plan.steps)
    ]


def watch_task(use_case: UseCase) -> JudgedStepOperator:
    """Return the task that watches the model after its promotion."""
    return _judged(use_case, "watch", None, use_case.release.beat.total_seconds())


def _judged(
    use_case: UseCase, task_id: str, step: int | None, beat: float, *, last: bool = False
) -> JudgedStepOperator:
    return JudgedStepOperator(
        task_id=task_id,
        step=step,
        last=last,
        use_case=use_case.name,
        every=beat / 3,
        # It lasts days, of which whatever goes wrong with a trigger must not end the release.
        execution_timeout=None,
        retries=RETRIES,
        retry_delay=timedelta(minutes=1),
        **place_of_waits(),
    )


def request_release(use_case: str) -> dict[str, Any]:
    """Ask the nodes to try the partition's candidate; skip the rest of the run where it waits.

    Raises: as `run_stage`.
    """
    result = end_task(execute_stage(STAGE, use_case, options={"phase": "request"}))
    _tell(use_case)  # a candidate that waited may be superseded by this one
    waiting = _release_state(use_case, result["key"]) == "waiting"
    if waiting:
        skip_task("wait_for_node", result)
    return result


def promote_release(use_case: str, *, emits: Asset) -> dict[str, Any]:
    """See the release through to its champion, and record what the partition came to.

    Raises:
        Conflict: the release is still in its steps; the next try waits for it again.
        AirflowSkipException: it was aborted.
        EvergreenError: as `run_stage`.
    """
    report = execute_stage(STAGE, use_case, options={"phase": "conclude"})
    if report.state == "waiting":
        raise Conflict(f"{use_case} {report.key}: {report.reason}; clear the task of its step")
    _start_waiting(use_case)
    return end_task(report, emits=emits)


def announce_end(use_case: str, *, emits: Asset) -> dict[str, Any]:
    """Record, emit and tell people how the partition's release ended; start what waits for that.

    Raises:
        AirflowSkipException: it has not ended, there was none, or another hand has said so.
    """
    from include.deployment.judge_release import release_of_partition
    from include.deployment.release_ends import end_event
    from include.pipeline.task_records import task_records

    context = get_current_context()
    key, records = run_key(use_case, context), task_records(settings())
    release = release_of_partition(records, use_case, key)
    if release is None or release.ended_at is None:
        _skip(f"no release of {key} has ended")
    if release.state in ("aborted", "rolled_back"):
        execute_stage(STAGE, use_case, options={"phase": "conclude"})
    is_ours = is_to_announce(settings(), records, release, owner_of(context))
    told = end_event(records, release)
    if is_ours:
        emit_event(emits, key, told)
    _tell(use_case)
    _start_waiting(use_case)
    if not is_ours:
        _skip(f"another hand has announced it: {told['says']}")
    return told


def steer_release(use_case: str) -> dict[str, Any]:
    """Do what the form of `control_release` says.

    Raises: as `control_release.steer`.
    """
    from include.deployment.control_release import steer

    context = get_current_context()
    params = context["params"]
    until = params.get("until")
    try:
        moment = datetime.fromisoformat(until) if until else None
    except ValueError:
        raise ConfigError(
            f"until: {until!r} is no time; write it as 2026-12-27T08:00:00Z"
        ) from None
    done = steer(
        settings(),
        use_case,
        params["action"],
        reason=params["reason"],
        actor=actor_of(context),
        at=utc_now(),
        version=params.get("version"),
        until=moment,
    )
    log.info("%s", done)
    _tell(use_case)
    if params["action"] == "thaw":
        _start_waiting(use_case)
    return {"done": done}


def _tell(use_case: str) -> None:
    """Emit what no run of its own has said, and deliver what people are to know; neither fails."""
    from include.deployment.release_alerts import deliver_alerts

    context = get_current_context()
    announce_missed(settings(), use_case, hand=owner_of(context))
    deliver_alerts(settings(), use_case, actor=actor_of(context))


def _start_waiting(use_case: str) -> None:
    """Start the candidate that waits, if nothing is in its way any more."""
    from include.orchestration.healing import start_waiting

    start_waiting(settings(), use_case, actor=actor_of(get_current_context()))


def _release_state(use_case: str, key: str) -> str:
    from include.deployment.judge_release import release_of_partition
    from include.pipeline.task_records import task_records

    release = release_of_partition(task_records(settings()), use_case, key)
    return "" if release is None else release.state


def _skip(reason: object) -> NoReturn:
    get_current_context()["ti"].xcom_push(key="reason", value=str(reason))
    raise AirflowSkipException(str(reason))
