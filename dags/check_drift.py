"""Compare a partition's features with those that the model in question was trained on.

**When.** On the asset `judged`, for the key of its event; or by the form.

**Inputs and outputs.** Reads the partition's verdict, its `features` and the reference (the sample
of all entities that training kept with the opponent, else the partition before, marked so); writes
the verdict *pass*, *drift* or *hold* with an audit row, and an HTML report with a page of Evidently
for each view, on a bounded sample; emits `drift`. Before that it imports the prediction log, as
`import_predictions` does every hour; if it cannot, it judges all the same.

**When it ends.** *drift* is a successful run: the reasons name the features whose PSI is above
`monitoring.psi`. So is *hold*: no reference, which is normal for the first partition, or a feature
whose index cannot be computed. A reference that cannot be read is tried again until
`wait.deadline`. Neither verdict alerts anybody.
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
        schedule=PartitionedAssetTimetable(assets=assets.judged),
        start_date=START,
        catchup=False,
        params=form(use_case),
        **dag_arguments(use_case, "check_drift", __doc__),
    )
    def check_drift() -> None:
        judge_task(
            use_case,
            "check_drift",
            "check",
            emits=assets.drift,
            before="include.orchestration.predictions.import_before",
        )

    check_drift()


for declared in use_cases():
    define(declared)
