"""A judgement that could not be reached: its task defers, tries again, and emits what it finds
at last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.config.settings import settings
from include.orchestration import tasks, triggers
from tests.builders.judging import NAME, Bench, new_bench
from tests.builders.stopwatch import Stopwatch

FIRST, SECOND = "2026-01-30", "2026-02-09"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A champion, and a candidate of a later partition that is to be judged against it."""
    made = new_bench(tmp_path)
    made.write()
    made.judged(FIRST)
    made.release(1, FIRST)
    made.run("train_model", SECOND)
    monkeypatch.setenv("EVERGREEN_HOME", str(made.settings.home))
    monkeypatch.setenv("EVERGREEN_USECASES", str(made.settings.usecases))
    monkeypatch.setattr(tasks, "lower_priority", lambda: None)
    settings.cache_clear()
    yield made
    monkeypatch.undo()
    settings.cache_clear()


def task(
    monkeypatch: pytest.MonkeyPatch, key: str, deadline: float = 3600.0
) -> tuple[Any, Any, Any]:
    """Return the operator of evaluate_model, the context of its run, and the event that it
    emits.
    """
    from airflow.sdk import Asset

    event = SimpleNamespace(extra=None, add_partitions=lambda _: None)
    asset = Asset(name="judged", uri=f"evergreen://{NAME}/judged")
    instance = SimpleNamespace(try_number=1, task_id="evaluate", xcom_push=lambda **_: None)
    run = SimpleNamespace(
        dag_id=f"{NAME}__evaluate_model",
        run_id="r",
        partition_key=key,
        run_type="asset",
        triggering_user_name=None,
    )
    context = {"dag_run": run, "ti": instance, "params": {}, "outlet_events": {asset: event}}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)
    made = triggers.JudgeOperator(
        task_id="evaluate",
        stage="evaluate_model",
        use_case=NAME,
        deadline=deadline,
        outlets=[asset],
    )
    return made, context, event


def test_what_could_not_be_read_is_tried_again_then_left_to_a_person_and_taken_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion's bundle is away: deferred with growing pauses, a hold at the deadline, a
    verdict once it is back.
    """
    from airflow.sdk.exceptions import TaskDeferred

    operator, context, event = task(monkeypatch, SECOND)
    bundle = Path(bench.model(FIRST).bundle)
    away = bundle.rename(bundle.with_name("away"))
    before = time.time()
    with pytest.raises(TaskDeferred) as first:
        operator.execute(context)
    with pytest.raises(TaskDeferred) as second:
        getattr(operator, first.value.method_name)(
            context, event={"again": True}, **first.value.kwargs
        )
    pauses = [deferred.value.trigger.until - before for deferred in (first, second)]
    assert triggers.FIRST_PAUSE <= pauses[0] < pauses[1]
    assert first.value.kwargs["until"] == second.value.kwargs["until"] >= before + 3600
    path, arguments = second.value.trigger.serialize()
    assert (path, set(arguments)) == ("include.orchestration.triggers.PauseTrigger", {"until"})
    assert event.extra is None, "a judgement that was not reached is told to nobody yet"

    told = operator.resume(context, {"again": True}, tries=9, until=time.time() - 1)
    assert (told["state"], event.extra["verdict"]) == ("unreadable", "hold")
    skipped = bench.run("package_model", SECOND)
    assert (skipped.state, "it is not judged" in skipped.reason) == ("skipped", True)

    away.rename(bundle)
    assert operator.execute(context)["state"] == "done"  # as `heal` has it run again
    assert event.extra["state"] == "done"
    assert bench.records.results.get(NAME, SECOND, "evaluate_model").outputs["opponent"] == 1  # type: ignore[union-attr]
    monkeypatch.setattr("include.packaging.package_model._reason_to_skip", lambda _: "asked again")
    assert not bench.run("package_model", SECOND).reused, (
        "a stage that was skipped takes up what was found later"
    )


def test_the_pause_ends_at_its_moment() -> None:
    async def collect(until: float) -> list[Any]:
        return [event.payload async for event in triggers.PauseTrigger(until).run()]

    stopwatch = Stopwatch()
    assert asyncio.run(collect(time.time() + 0.05)) == [{"again": True}]
    assert asyncio.run(collect(time.time() - 60)) == [{"again": True}]
    assert stopwatch.seconds < 5
