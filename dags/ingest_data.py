"""Take one partition's rows from the sources into `raw`, exactly as received.

**When.** At the end of each period, by the clock: the run waits, deferred, until the partition's
`as_of` (the end of the period plus `cut_off`) has passed. Also by the form, by a backfill (its last
day is included), or by REST. A use case with a closed history (`history.last`) has no scheduled
run.

**Inputs and outputs.** Reads the sources of the use case; replaces the partition in `raw` and emits
`raw`, on which all the rest of the chain runs for the same key. It also records what the partition
is meant for: *live* for the schedule and for a form run of the newest complete partition,
*backfill* for any other; later stages read that record. Live: partitions before it that nobody ran
(machine off, DAG paused) are loaded first.

**When it fails.** `SourceError`: a source is missing or is not what the use case declares; the
message names the file and the rule. Put it right and clear the task. `RestatementRefused`: the
source now gives other rows for a recorded partition, or lacks some of them (rows that only came
late are left to the newest partition, and named). If the new rows are right, run the form with a
reason in *Restate*: it is audited, and what depends on the partition shows as stale in `evergreen
status`.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of
from include.orchestration.dag_defaults import (
    START,
    dag_arguments,
    form,
    period_schedule,
    schedule_end,
    use_cases,
)
from include.orchestration.tasks import prepare_partition, run_stage
from include.orchestration.triggers import WaitForOperator

RESTATE = Param(
    None,
    type=["null", "string"],
    maxLength=500,
    title="Restate",
    description="Why a recorded partition is to be replaced by what the source gives now. Empty: "
    "refuse a difference.",
)


def define(use_case: UseCase) -> None:
    assets = assets_of(use_case.name)

    @dag(
        schedule=period_schedule(use_case),
        start_date=START,
        end_date=schedule_end(use_case),
        catchup=False,
        max_active_runs=16,
        params=form(use_case, restate=RESTATE),
        **dag_arguments(use_case, "ingest_data", __doc__) | {"is_paused_upon_creation": True},
    )
    def ingest_data() -> None:
        period_over = WaitForOperator(
            task_id="wait_for_cut_off",
            call="include.orchestration.readiness.check_period_over",
            use_case=use_case.name,
            every=15,
            timeout=40 * 86400,
        )

        @task
        def load_gap() -> dict[str, Any]:
            return prepare_partition(use_case.name)

        @task(outlets=[assets.raw])
        def ingest(params: dict[str, Any] | None = None) -> dict[str, Any]:
            reason = (params or {}).get("restate")
            return run_stage(
                "ingest_data",
                use_case.name,
                emits=assets.raw,
                options={"restate": reason} if reason else {},
            )

        period_over >> load_gap() >> ingest()

    ingest_data()


for declared in use_cases():
    define(declared)
