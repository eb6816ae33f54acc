"""Compare a partition's features with those that the model in question was trained on.

**When.** On the asset `judged`, for the key of its event; or by the form.

**Inputs and outputs.** Reads the partition's `features` and the reference (the opponent's stored sample of all
entities, else the partition before, marked so); writes `scores`, an Evidently HTML report on a bounded sample and a
verdict in the audit chain; imports closed segments of the prediction log; emits `drift`.

**When it ends.** Verdict *fail* is a successful run: a PSI above `monitoring.psi` names the features. *hold: no reference*
is normal for the first partition. A reference that cannot be read is tried again until `wait.deadline`. It alerts
nobody for a backfilled partition.
"""

from __future__ import annotations

from airflow.sdk import PartitionedAssetTimetable, dag

from include.config.use_case import UseCase
from include.orchestration.assets import assets_of
from include.orchestration.dag_defaults import START, common, form, use_cases
from include.orchestration.triggers import judging


def define(use_case: UseCase) -> None:
    flow = assets_of(use_case.name)

    @dag(
        schedule=PartitionedAssetTimetable(assets=flow.judged),
        start_date=START,
        catchup=False,
        params=form(use_case),
        **common(use_case, "check_drift", __doc__),
    )
    def check_drift() -> None:
        judging(use_case, "drift", "check", emits=flow.drift)

    check_drift()


for each in use_cases():
    define(each)
