"""Wait without a worker slot: deferrable operators that ask a plain function for an answer."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from include import errors
from include.clock import wait_for
from include.orchestration.queues import place_of_waits
from include.orchestration.runs import run_key
from include.orchestration.tasks import end_task, execute_stage

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from include.config.use_case import UseCase

FIRST_PAUSE, LONGEST_PAUSE = 15.0, 900.0  # seconds
Question = Callable[..., "dict[str, Any] | None"]


class PollTrigger(BaseTrigger):
    """Ask `call` (a dotted name) every few seconds until it answers or the deadline passes.

    It is asked off the event loop, which other triggers share. The deadline is in seconds since
    1970, so a restart of the triggerer neither loses nor prolongs the wait.
    """

    def __init__(self, call: str, arguments: dict[str, Any], every: float, deadline: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.call, self.arguments, self.every, self.deadline = call, arguments, every, deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        values = {
            "call": self.call,
            "arguments": self.arguments,
            "every": self.every,
            "deadline": self.deadline,
        }
        return "include.orchestration.triggers.PollTrigger", values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the answer, what went wrong, or that the deadline has passed."""
        while time.time() < self.deadline:
            try:
                answer = await asyncio.to_thread(load_question(self.call), **self.arguments)
            except errors.EvergreenError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            if answer is not None:
                yield TriggerEvent(answer)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(min(self.every, max(0.0, self.deadline - time.time())))
        yield TriggerEvent({"timeout": True})  # type: ignore[no-untyped-call]


class PauseTrigger(BaseTrigger):
    """Wait until a moment in seconds since 1970: a restart of the triggerer begins nothing anew."""

    def __init__(self, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        return "include.orchestration.triggers.PauseTrigger", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, when the moment has come."""
        while (left := self.until - time.time()) > 0:  # a clock that is set meanwhile is read again
            await asyncio.sleep(min(left, 30.0))
        yield TriggerEvent({"again": True})  # type: ignore[no-untyped-call]


class JudgeOperator(BaseOperator):
    """Run a stage that judges, and try again what it could not read.

    Where it could not read what its verdict rests on, it defers, with growing pauses. After
    `deadline` (seconds since the first try) the hold is emitted as it stands, and left to a person
    (`evergreen heal`). The asset to emit is the task's one outlet. `before`, a dotted name, is
    called with the use case before the first try: in this task, since another one would cost as
    much as the judgement.
    """

    def __init__(
        self, *, stage: str, use_case: str, deadline: float, before: str = "", **options: Any
    ) -> None:
        super().__init__(**options)
        self.stage, self.use_case, self.deadline, self.before = stage, use_case, deadline, before

    def execute(self, context: Context) -> dict[str, Any]:
        """Judge for the first time."""
        if self.before:
            load_question(self.before)(self.use_case)
        return self._try(0, time.time() + self.deadline)

    def resume(
        self, context: Context, event: dict[str, Any], tries: int, until: float
    ) -> dict[str, Any]:
        """Judge again after a pause."""
        return self._try(tries, until)

    def _try(self, tries: int, until: float) -> dict[str, Any]:
        report, now = execute_stage(self.stage, self.use_case), time.time()
        if report.state == "unreadable" and now < until:
            at = min(now + min(FIRST_PAUSE * 2**tries, LONGEST_PAUSE), until)
            self.log.warning("unreadable, tried again in %.0f s: %s", at - now, report.reason)
            self.defer(
                trigger=PauseTrigger(at),
                method_name="resume",
                kwargs={"tries": tries + 1, "until": until},
            )
        return end_task(report, emits=self.outlets[0])


class WaitForOperator(BaseOperator):
    """Wait until `call(use_case, key, **arguments)` answers.

    Where it does already, the triggerer is not asked. `patience` is how long the task itself asks
    before it gives its slot back, `timeout` how long it waits in all (both in seconds). The answer
    goes to XCom; one with `error` and `message` fails the task with that error.
    """

    def __init__(
        self,
        *,
        call: str,
        use_case: str,
        arguments: Mapping[str, Any] | None = None,
        every: float = 5.0,
        patience: float = 0.0,
        timeout: float = 6 * 3600.0,
        fail_on_timeout: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.call, self.use_case, self.arguments = call, use_case, dict(arguments or {})
        self.every, self.patience, self.timeout, self.fail_on_timeout = (
            every,
            patience,
            timeout,
            fail_on_timeout,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask, and defer if there is no answer yet."""
        arguments = {
            "use_case": self.use_case,
            "key": run_key(self.use_case, context),
            **self.arguments,
        }
        question = load_question(self.call)
        answer = wait_for(lambda: question(**arguments), seconds=self.patience, every=0.25)
        if answer is not None:
            return self.accept(answer)
        self.log.info(
            "%s(%s) has no answer yet; waiting up to %.0f s", self.call, arguments, self.timeout
        )
        self.defer(
            trigger=PollTrigger(self.call, arguments, self.every, time.time() + self.timeout),
            method_name="resume",
        )

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the trigger's answer."""
        if event.get("timeout") and not self.fail_on_timeout:
            return event
        if event.get("timeout"):
            raise errors.MissingPartition(
                f"{self.call} for {self.use_case} had no answer within {self.timeout:.0f} s; see "
                f"what it waits for with `evergreen status {self.use_case}`, then clear this task"
            )
        return self.accept(event)

    def accept(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer, or raise the error that it names."""
        if "error" not in answer:
            return answer
        kind = getattr(errors, str(answer["error"]), errors.EvergreenError)
        raise kind(str(answer.get("message", "")))


def wait_for_inputs(use_case: UseCase, stage: str) -> WaitForOperator:
    """Return the task that waits while what a stage needs is coming, and fails where it is not."""
    return WaitForOperator(
        task_id="wait_for_inputs",
        call="include.orchestration.readiness.check_inputs",
        use_case=use_case.name,
        arguments={"stage": stage},
        timeout=use_case.wait.deadline.total_seconds(),
        **place_of_waits(),
    )


def judge_task(
    use_case: UseCase, stage: str, task_id: str, emits: Asset, *, before: str = ""
) -> JudgeOperator:
    """Return the task that judges and emits its verdict, and tries again what it could not read."""
    return JudgeOperator(
        task_id=task_id,
        stage=stage,
        use_case=use_case.name,
        deadline=use_case.wait.deadline.total_seconds(),
        before=before,
        outlets=[emits],
    )


def load_question(call: str) -> Question:
    """Return the function of a dotted name, as the triggerer stores it."""
    module, _, name = call.rpartition(".")
    question: Question = getattr(importlib.import_module(module), name)
    return question
