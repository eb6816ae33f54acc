"""Build the Bento of a model that passed the gate and try it in a process of its own.

**When.** On the asset `judged`, for the key of its event; or by the form.

**Inputs and outputs.** Reads the model's bundle (booster text and `schema.json` under one digest);
writes a BentoML model and a Bento with an exact tag, and an exported `.bento`; emits `bento`. A
refused or backfilled candidate is not packaged: the task ends as skipped with the reason, and only
then `announce` runs and passes that on, so that `deploy_model` shows it too.

**When it fails.** `ArtefactError`: the bundle does not have its recorded digest; train the
partition again. A smoke test that fails prints the end of the Bento's own log. `bentoml list` shows
what there is.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import PartitionedAssetTimetable, dag, task

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of
from include.orchestration.dag_defaults import START, dag_arguments, form, use_cases
from include.orchestration.tasks import announce_result, run_stage, skip_task


def define(use_case: UseCase) -> None:
    assets = assets_of(use_case.name)

    @dag(
        schedule=PartitionedAssetTimetable(assets=assets.judged),
        start_date=START,
        catchup=False,
        max_active_runs=2,
        params=form(use_case),
        **dag_arguments(use_case, "package_model", __doc__),
    )
    def package_model() -> None:
        @task(outlets=[assets.bento])
        def package() -> None:
            skip_task("announce", run_stage("package_model", use_case.name, emits=assets.bento))

        @task(outlets=[assets.bento], trigger_rule="none_failed")
        def announce() -> dict[str, Any]:
            return announce_result("package_model", use_case.name, emits=assets.bento)

        package() >> announce()

    package_model()


for declared in use_cases():
    define(declared)
