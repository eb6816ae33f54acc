"""Remove what no record needs any more, so that nothing of an installation grows without bound.

**When.** Every night, at a minute of the use case's own after four o'clock (UTC); by the form at
any time. `evergreen gc --dry-run` shows what it would remove.

**Inputs and outputs.** `collect` marks from the records: what serves, served before, may serve next
or is on hold, whom those were judged against, and the newest `retention.models`. The other models
lose their bundle, their Bento and what MLflow has of them, once these are older than 48 hours;
their rows stay, marked as collected. Files of the lake that no recorded manifest's version needs
go, and predictions older than `log.retention`. The audit rows (`garbage.collected`,
`predictions.expired`) are written before anything is removed. `trim_airflow` removes what Airflow's
own database has kept for longer than `EVERGREEN_AIRFLOW_DAYS`, once a night for all use cases.

**When it fails.** Nothing that is needed is lost, and the next run finishes what this one began.
`Busy`: another collection is at work. `Unavailable`: MLflow or Airflow's database does not answer;
clear the task. What is in use is put off to the next night and named in the task's return value. To
have the files of a collected model again, run `train_model` for its partition.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from include.config.settings import settings
from include.config.use_case import UseCase
from include.orchestration.dag_defaults import START, dag_arguments, nightly, use_cases
from include.orchestration.garbage import actor, collect
from include.orchestration.queues import executor_with_database


def define(use_case: UseCase) -> None:
    @dag(
        schedule=nightly(use_case),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        **dag_arguments(use_case, "collect_garbage", __doc__),
    )
    def collect_garbage() -> None:
        @task(task_id="collect")
        def collect_files() -> dict[str, Any]:
            return collect(use_case.name)

        @task(executor=executor_with_database(settings()))
        def trim_airflow() -> dict[str, int]:
            from include.installation.airflow_history import trim_tonight

            return trim_tonight(actor=actor())

        collect_files() >> trim_airflow()

    collect_garbage()


for declared in use_cases():
    define(declared)
