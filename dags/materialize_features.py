"""Compute the features of a partition; when it is live, put the entities' newest rows online.

**When.** On the asset `curated`, for the key of its event; or by the form.

**Inputs and outputs.** Reads `curated` as known before `as_of`, over the views' lookback; writes
`features` for every feature set in use (the current one, those of champion, previous, challenger,
the candidate that waits and the newest one, and those that a judgement of this or a later partition
compares with) and emits `features`. Live: replaces the online rows of each set in one transaction
and reads them back; an older partition never replaces a newer one.

**When it fails.** `MissingPartition` names the partitions of the lookback that are not there and
the command that loads them; while they are on their way the first task waits instead. An error in
SQL names the view and its file under `feature_repo/sql`. After a change of a view, load its history
(`load_history`) before the next training.
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
        schedule=PartitionedAssetTimetable(assets=assets.curated),
        start_date=START,
        catchup=False,
        params=form(use_case),
        **dag_arguments(use_case, "materialize_features", __doc__),
    )
    def materialize_features() -> None:
        @task(outlets=[assets.features])
        def materialize() -> dict[str, Any]:
            return run_stage("materialize_features", use_case.name, emits=assets.features)

        wait_for_inputs(use_case, "materialize_features") >> materialize()

    materialize_features()


for declared in use_cases():
    define(declared)
