"""The deferrable wait: at once where it is answered, by an absolute deadline, errors by name."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import MissingPartition, Unavailable

ASKED: list[dict[str, Any]] = []
ANSWERS: list[dict[str, Any] | None] = []
THREADS: list[str] = []
ME = f"{__name__}.ask"


def ask(**arguments: Any) -> dict[str, Any] | None:
    """A question as a stage would offer it."""
    ASKED.append(arguments)
    THREADS.append(threading.current_thread().name)
    return ANSWERS.pop(0) if ANSWERS else None


def raise_unavailable(**_: Any) -> None:
    """A question that cannot be asked now."""
    raise Unavailable("nobody answers")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for kept in (ASKED, ANSWERS, THREADS):
        kept.clear()


def context(
    key: str | None = "2026-06-30", form: str | None = None, run_after: datetime | None = None
) -> Any:
    run = SimpleNamespace(
        partition_key=key, run_after=run_after or datetime(2026, 7, 2, 12, tzinfo=UTC)
    )
    return {"dag_run": run, "params": {"partition": form}}


def operator(**options: Any) -> Any:
    from include.orchestration.triggers import WaitForOperator

    return WaitForOperator(
        task_id="wait",
        call=ME,
        use_case="repayment",
        arguments={"stage": "materialize_features"},
        **options,
    )


def events(trigger: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(collect())


def test_an_answer_that_is_there_needs_no_trigger() -> None:
    ANSWERS.append({"inputs": "there"})
    assert operator().execute(context()) == {"inputs": "there"}
    assert ASKED == [
        {"use_case": "repayment", "key": "2026-06-30", "stage": "materialize_features"}
    ]


def test_no_answer_gives_the_slot_back_with_an_absolute_deadline() -> None:
    from airflow.sdk.exceptions import TaskDeferred

    before = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        operator(timeout=3600, every=7).execute(context())
    path, arguments = deferred.value.trigger.serialize()
    assert path == "include.orchestration.triggers.PollTrigger"
    assert before + 3600 <= arguments["deadline"] <= time.time() + 3600
    assert arguments["every"] == 7
    assert arguments["arguments"]["key"] == "2026-06-30"


def test_patience_asks_again_before_it_gives_the_slot_back() -> None:
    ANSWERS.extend([None, None, {"state": "ready"}])
    assert operator(patience=60).execute(context()) == {"state": "ready"}
    assert len(ASKED) == 3


def test_the_trigger_asks_off_the_event_loop_until_there_is_an_answer() -> None:
    from include.orchestration.triggers import PollTrigger

    ANSWERS.extend([None, None, {"inputs": "there"}])
    assert events(PollTrigger(ME, {"key": "k"}, 0.01, time.time() + 30)) == [{"inputs": "there"}]
    assert len(ASKED) == 3
    assert "MainThread" not in THREADS


def test_a_deadline_that_passed_while_everything_was_off_ends_the_wait_at_once() -> None:
    from include.orchestration.triggers import PollTrigger

    assert events(PollTrigger(ME, {}, 5, time.time() - 1)) == [{"timeout": True}]
    assert ASKED == []
    with pytest.raises(MissingPartition, match="evergreen status repayment"):
        operator().resume(context(), {"timeout": True})
    assert operator(fail_on_timeout=False).resume(context(), {"timeout": True}) == {"timeout": True}


def test_an_error_keeps_its_name_on_the_way_through_the_trigger() -> None:
    from include.orchestration.triggers import PollTrigger

    trigger = PollTrigger(f"{__name__}.raise_unavailable", {}, 1, time.time() + 60)
    [answer] = events(trigger)
    with pytest.raises(Unavailable, match="nobody answers"):
        operator().resume(context(), answer)


def test_an_answer_with_an_error_fails_the_task_with_that_error() -> None:
    ANSWERS.append({"error": "MissingPartition", "message": "2026-06-01 is not there"})
    with pytest.raises(MissingPartition, match="2026-06-01"):
        operator().execute(context())
