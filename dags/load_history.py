"""Load months of history in one pass: ingestion, validation and features of a range of partitions.

**When.** Before the first training, or after a new feature: run it from the form. Empty fields mean
all that a training on the newest partition looks back on, up to the partition before the newest.

**Inputs and outputs.** Reads the sources; fills `raw`, `quarantine`, `curated`, `labels` and
`features`. Partitions are recorded as *backfill*, for their data only: nothing is trained, nothing
goes online, no asset event is emitted. Ingestion and validation begin earlier than `first`, by what
the features look back on. Partitions that are on record and unchanged are answered from the record,
so running it again is cheap.

**When it fails.** A blocked or failed day stops that day, not the range: the log names the first
five and why, and `evergreen status USE_CASE` lists all. Put the source right, then run the same
range again. A task fails only when not one partition of the range ended well.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task

from include.config.use_case import UseCase
from include.orchestration.dag_defaults import START, dag_arguments, use_cases
from include.orchestration.tasks import load_range


def day(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


def define(use_case: UseCase) -> None:
    @dag(
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        params={
            "first": day(
                "First partition", "Empty: as far back as a training on the newest partition looks."
            ),
            "last": day("Last partition", "Empty: the partition before the newest complete one."),
        },
        **dag_arguments(use_case, "load_history", __doc__),
    )
    def load_history() -> None:
        @task
        def ingest() -> dict[str, Any]:
            return load_range("ingest_data", use_case.name)

        @task
        def validate() -> dict[str, Any]:
            return load_range("validate_data", use_case.name)

        @task
        def materialize() -> dict[str, Any]:
            return load_range("materialize_features", use_case.name)

        ingest() >> validate() >> materialize()

    load_history()


for declared in use_cases():
    define(declared)
