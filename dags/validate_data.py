"""Check a raw partition against its contract, curate what passes, and write its labels.

**When.** On the asset `raw`, for the key of its event; or by the form.

**Inputs and outputs.** Reads `raw`; writes `curated` (typed, UTC, exact duplicates removed),
`quarantine` (failing rows with the rule that failed) and the `labels` that became known in it;
emits `curated` with the verdict *pass* or *quarantine*. Great Expectations' result and its page
stand under `validation/` in the home folder.

**When it fails.** Verdict *block*: the contract is broken (missing, renamed or retyped columns, too
many bad rows, too few rows). The message has the difference. Fix the source, then run `ingest_data`
for the partition with a reason in *Restate*; or, if the new shape is meant, change the use case's
YAML and clear this task. `evergreen quarantine list USE_CASE` shows the rows. `MissingPartition`
names partitions that are needed and the command that fills them.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import PartitionedAssetTimetable, dag, task

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of
from include.orchestration.dag_defaults import START, dag_arguments, form, use_cases
from include.orchestration.tasks import run_stage
from include.orchestration.triggers import wait_for_inputs


def define(use_case: UseCase) -> None:
    assets = assets_of(use_case.name)

    @dag(
        schedule=PartitionedAssetTimetable(assets=assets.raw),
        start_date=START,
        catchup=False,
        params=form(use_case),
        **dag_arguments(use_case, "validate_data", __doc__),
    )
    def validate_data() -> None:
        @task(outlets=[assets.curated])
        def validate() -> dict[str, Any]:
            return run_stage("validate_data", use_case.name, emits=assets.curated)

        wait_for_inputs(use_case, "validate_data") >> validate()

    validate_data()


for declared in use_cases():
    define(declared)
