"""Release a packaged challenger: the serving node tries it, then it becomes champion.

**When.** On the asset `bento`, for the key of its event; or by the form.

**Inputs and outputs.** No process is started here. `request` writes the desired state (the routing
row) by compare-and-set; the serving node verifies the bundle, tries it in a child and asks it the
golden rows; `finish` makes it champion in one transaction with the audit row, mirrors MLflow's
aliases and emits `champion`. A refused, held or backfilled candidate ends as skipped with the
reason; an older partition never replaces a newer one. There is no shadow traffic and no step
between the trial and the champion.

**When it fails.** `Unavailable`: no serving node follows the use case; start one with `evergreen
serve` and clear the task. `ArtefactError`: the node refuses the model, and says why; what was
served goes on. Where another champion was released since the judgement, the task ends as skipped
and emits `candidate` again: `evaluate_model` judges anew, once a generation of the routing row.
`evergreen rollback USE_CASE` goes back.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import PartitionedAssetTimetable, dag, task

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of
from include.orchestration.dag_defaults import START, dag_arguments, form, use_cases
from include.orchestration.tasks import run_stage
from include.orchestration.triggers import WaitForOperator


def define(use_case: UseCase) -> None:
    assets = assets_of(use_case.name)

    @dag(
        schedule=PartitionedAssetTimetable(assets=assets.bento),
        start_date=START,
        catchup=False,
        params=form(use_case),
        **dag_arguments(use_case, "deploy_model", __doc__),
    )
    def deploy_model() -> None:
        @task
        def request() -> dict[str, Any]:
            return run_stage("deploy_model", use_case.name, options={"phase": "request"})

        tried = WaitForOperator(
            task_id="wait_for_node",
            call="include.deployment.rollout.answered",
            use_case=use_case.name,
            every=1,
            patience=8,
            timeout=600,
            fail_on_timeout=False,
        )

        @task(outlets=[assets.champion])
        def finish() -> dict[str, Any]:
            return run_stage(
                "deploy_model", use_case.name, emits=assets.champion, options={"phase": "finish"}
            )

        request() >> tried >> finish()

    deploy_model()


for declared in use_cases():
    define(declared)
