"""Release a packaged challenger in steps: tried, mirrored, a share of traffic, champion, watched.

**When.** On the asset `bento`, for the key of its event; or by the form.

**Inputs and outputs.** No process is started here. `request` names the candidate in the routing
row, by compare-and-set; a serving node verifies the bundle, tries it in a child and asks it the
golden rows (`wait_for_node`). `begin` gives it the traffic of its first step. The tasks of the
steps judge it every third of `release.beat` (a minute), deferred, and show the evidence as a table
in their log; the last *pass* makes it champion, which `promote` records, with MLflow's aliases and
the asset `champion`. `watch` judges it a day longer, and `announce` emits `release_ended`. The
first model, a plan without steps, and one of thin traffic that stood a replay are promoted by
`begin`, which waits, deferred, while a person has paused the release. While another candidate is
released the run ends green as *waiting*; the end of that release starts its partition again.

**When it ends.** *Aborted* (its deadline, its judge away, replaced, a person): the step is skipped
with the reason, the champion answers, the same model may start again. *Rolled back*: the step
fails, and the model's digest is on hold (`evergreen release lift`). A refused, held or backfilled
candidate ends as skipped with the reason. Pause, abort and the rest: `control_release`, or
`evergreen release`.

**When it fails.** `Unavailable`: no serving node follows the use case; start one with `evergreen
serve` and clear the task. `ArtefactError`: the node refuses the model, or it was rolled back, or a
model that a rollback would go back to cannot be loaded, and says why; what was served goes on. A
task that is cleared, and `evergreen heal`, take a release up where it is. Where another champion
was released since the judgement, `request` ends as skipped and emits `candidate` again.
`evergreen rollback USE_CASE` goes back.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import PartitionedAssetTimetable, chain, dag, task

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of, ended_asset
from include.orchestration.dag_defaults import START, dag_arguments, form, use_cases
from include.orchestration.release_tasks import (
    announce_end,
    begin_task,
    promote_release,
    request_release,
    step_tasks,
    watch_task,
)
from include.orchestration.triggers import WaitForOperator


def define(use_case: UseCase) -> None:
    assets, ended = assets_of(use_case.name), ended_asset(use_case.name)

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
            return request_release(use_case.name)

        tried = WaitForOperator(
            task_id="wait_for_node",
            call="include.deployment.rollout.answered",
            use_case=use_case.name,
            every=1,
            patience=8,
            timeout=600,
            fail_on_timeout=False,
        )

        @task(outlets=[assets.champion], trigger_rule="none_failed_min_one_success")
        def promote() -> dict[str, Any]:
            return promote_release(use_case.name, emits=assets.champion)

        @task(outlets=[ended])
        def announce() -> dict[str, Any]:
            return announce_end(use_case.name, emits=ended)

        began, champion, steps = begin_task(use_case), promote(), step_tasks(use_case)
        chain(request(), tried, began, *steps, champion)
        began >> champion  # it is enough: a release may take no steps
        # What ends badly shows as the run's end; a teardown runs in either case, and hides neither.
        champion >> watch_task(use_case) >> announce().as_teardown()

    deploy_model()


for declared in use_cases():
    define(declared)
