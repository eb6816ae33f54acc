"""Train a candidate on the decisions that are mature at the partition's `as_of`, and register it.

**When.** On the asset `features`, for the key of its event; or by the form.

**Inputs and outputs.** Reads `labels` and `features` as known at each decision, within
`training.window`; writes `training_set`, the model's bundle and the drift reference, an MLflow run
with parameters, metrics and manifest, and a registered version; emits `candidate`. The same inputs
give the same model digest. With too few mature rows it succeeds without a candidate, and the
partition's verdict is *hold*.

**When it fails.** `MissingPartition` names what is not there and the command that loads it. The
leak gate refuses, all at once and each with its evidence and the YAML that mends it, features that
are null on every row, are ids, or know the outcome (docs/explanation/leak-gate.md). A killed task
is simply run again: a version of the same model is found again, never doubled.
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
        schedule=PartitionedAssetTimetable(assets=assets.features),
        start_date=START,
        catchup=False,
        max_active_runs=2,
        params=form(use_case),
        **dag_arguments(use_case, "train_model", __doc__),
    )
    def train_model() -> None:
        @task(outlets=[assets.candidate])
        def train() -> dict[str, Any]:
            return run_stage("train_model", use_case.name, emits=assets.candidate)

        wait_for_inputs(use_case, "train_model") >> train()

    train_model()


for declared in use_cases():
    define(declared)
