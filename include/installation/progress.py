"""What a start shows: steps as they end, why one failed, the answer, where to look further."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import EvergreenError
from include.installation.services import descriptions
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_runs import ACTIVE, Run
from include.pipeline.flow import GOAL, STAGES
from include.records.records import Records

POLL = 0.5  # seconds between two looks at Airflow
STALLED_AFTER = 90.0  # seconds in which nothing ran; between two runs Airflow needs a few
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")


class NotDeployed(EvergreenError):
    """The chain ended without a model that answers; the message says where and why."""


def print_line(text: str = "") -> None:
    """Write a line on standard output, at once; what nobody reads any more ends nothing."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough: the rest goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_step(name: str, state: str, seconds: float) -> None:
    """Write how a step ended, and how long it took."""
    print_line(f"  {name:<22} {state:<20} {seconds:6.1f} s")


def print_answer(answer: Mapping[str, Any]) -> None:
    """Write the fields of the node's answer, one a line."""
    width = max(len(name) for name in answer)
    print_line("\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in answer.items()))


def print_addresses(settings: Settings) -> None:
    """Write what can be opened now, and how to stop."""
    print_line()
    for name, address in descriptions(settings):
        print_line(f"  {name:<14} {address}")
    print_line("\nthe nightly run happens by itself; Ctrl-C stops everything")


class Followed:
    """Airflow's runs of one use case, shown as they end; `pause` waits, and raises on Ctrl-C."""

    def __init__(
        self,
        settings: Settings,
        use_case: str,
        records: Records,
        api: AirflowApi,
        pause: Callable[[float], None],
    ) -> None:
        self._settings, self._use_case, self._records = settings, use_case, records
        self._api, self._pause = api, pause

    def follow_run(self, run: Run) -> None:
        """Show the tasks of one run as they end.

        Raises:
            NotDeployed: the run failed.
        """
        shown: set[str] = set()
        while True:
            run = self._api.run(run.dag_id, run.run_id)
            for task in self._api.tasks(run):
                if task.task_id not in shown and task.state in ENDED:
                    shown.add(task.task_id)
                    print_step(task.task_id, str(task.state), task.seconds)
            if not run.active:
                return self._expect_success(run)
            self._pause(POLL)

    def follow_chain(self, keys: Collection[str], since: datetime) -> None:
        """Show every run of these keys as it ends, until all stages of each have ended.

        A release goes on by itself, for days: it is shown with its step, and not waited for.

        Raises:
            NotDeployed: a run failed, or nothing moves any more.
        """
        waiting = {(stage, key) for key in keys for stage in STAGES}
        moved = time.monotonic()
        while waiting:
            runs = self._api.runs(prefix=f"{self._use_case}__", after=since)
            self._show_ended(runs, waiting, since, with_key=len(keys) > 1)
            self._show_releasing(runs, waiting)
            if any(run.active for run in runs) or self._is_anything_active():
                moved = time.monotonic()
            if time.monotonic() - moved > STALLED_AFTER:
                lacking = ", ".join(sorted(f"{dag} {key}" for dag, key in waiting)[:3])
                raise NotDeployed(
                    f"nothing runs, yet {lacking} has not; `evergreen heal {self._use_case}` "
                    "starts it again"
                )
            if waiting:
                self._pause(POLL)

    def _show_ended(
        self, runs: Sequence[Run], waiting: set[tuple[str, str]], since: datetime, *, with_key: bool
    ) -> None:
        """Show runs that have ended, in that order, and take their stages from `waiting`."""
        ended = sorted((run for run in runs if not run.active), key=lambda run: run.ended or since)
        for run in ended:
            stage = run.dag_id.partition("__")[2]
            if (stage, run.key or "") in waiting:
                waiting.discard((stage, run.key or ""))
                print_step(stage, f"{run.state}  {run.key}" if with_key else run.state, run.seconds)
                self._expect_success(run)

    def _show_releasing(self, runs: Sequence[Run], waiting: set[tuple[str, str]]) -> None:
        """Show the releases that wait in a step, or are watched, and take them from `waiting`."""
        for run in runs:
            stage, key = run.dag_id.partition("__")[2], run.key or ""
            if not run.active or stage != GOAL["deployed"] or (stage, key) not in waiting:
                continue
            steps = [
                task
                for task in self._api.tasks(run)
                if task.state == "deferred" and task.task_id != "wait_for_node"
            ]
            if steps:
                waiting.discard((stage, key))
                began = run.started or utc_now()
                so_far = (utc_now() - began).total_seconds()
                print_step(stage, f"in {steps[0].task_id}", so_far)

    def _is_anything_active(self) -> bool:
        """Tell whether a run of this use case is active, also one that was made before."""
        return bool(self._api.runs(prefix=f"{self._use_case}__", states=ACTIVE))

    def _expect_success(self, run: Run) -> None:
        if run.state == "success":
            return
        failed = [task.task_id for task in self._api.tasks(run) if task.state == "failed"]
        where = f"{run.dag_id} {run.key or ''}".strip() + (f", task {failed[0]}" if failed else "")
        raise NotDeployed(f"{where} failed: {self._reason(run, failed[0] if failed else '')}")

    def _reason(self, run: Run, task_id: str) -> str:
        """Return why a task failed: its entry in the audit log says it."""
        entries = self._records.audit.entries(self._use_case, action="task.failed", limit=20)
        for entry in reversed(entries):
            if entry.details.get("run") == run.run_id and entry.details.get("task") == task_id:
                return str(entry.details["reason"])
        return f"see its log in {self._settings.home / 'logs' / 'airflow'}"
