"""Judge the candidate of a partition: absolute checks, then against its opponent.

**When.** On the asset `candidate`, for the key of its event; or by the form.

**Inputs and outputs.** Reads the candidate, its training set and the opponent (live: the champion
in the routing row; backfill: the champion released from the newest older partition); writes the
verdict *pass*, *fail* or *hold* with its reasons, an audit row and an HTML report; emits `judged`.
Live and *pass*: the candidate becomes challenger.

**When it ends.** A refusal is a successful run: the verdict and the reasons stand in the event, in
the report and in `evergreen status`; packaging and deployment then end as skipped. No metric, NaN
or too few rows is *hold*. What could not be read (the opponent's bundle, a table) is no verdict:
the task waits, deferred, and tries again until `wait.deadline` (`evergreen status`: *unreadable,
tried again*); then it emits *hold*, and `evergreen heal` judges again.
"""

from __future__ import annotations

from airflow.sdk import PartitionedAssetTimetable, dag

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of
from include.orchestration.dag_defaults import START, dag_arguments, form, use_cases
from include.orchestration.triggers import judge_task


def define(use_case: UseCase) -> None:
    assets = assets_of(use_case.name)

    @dag(
        schedule=PartitionedAssetTimetable(assets=assets.candidate),
        start_date=START,
        catchup=False,
        params=form(use_case),
        **dag_arguments(use_case, "evaluate_model", __doc__),
    )
    def evaluate_model() -> None:
        judge_task(use_case, "evaluate_model", "evaluate", emits=assets.judged)

    evaluate_model()


for declared in use_cases():
    define(declared)
