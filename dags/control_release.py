"""Steer a release that is on its way: pause, go on, promote, abort, roll back; freeze and thaw.

**When.** By the form, whenever a person wants to; `evergreen release` does the same from a shell.

**Inputs and outputs.** `steer` makes one transition of the records, with who asked and the reason
in its audit row. *pause*: the step stays, and so does its share of the traffic. *unpause*: it goes
on; of a suspended release the step begins anew. *advance*: the next step now, after the last one
the promotion. *promote*: champion now. *abort*: the champion answers everybody, nothing is held
against the model. *roll back*: the same, and the model's digest is on hold. Without a *Version*
these two are of the release in its steps; a watched champion is rolled back, and a candidate that
waits or is only tried is aborted, by its version. *freeze*: no release starts before *Until*.
*thaw*: ends that, and starts what waits. The run of `deploy_model` sees it at its next look and
ends as it should.

**When it fails.** `Conflict`: there is no release that this could be said of, or the one that was
meant has ended or, to *advance*, moved on meanwhile, as the message says; look with `evergreen
release status USE_CASE`. Nothing is tried again by itself: whoever still wants it asks again.
`ConfigError`: the reason or the end of a freeze is missing.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task

from include.config.use_case import UseCase
from include.deployment.release_actions import ACTIONS
from include.orchestration.dag_defaults import START, dag_arguments, use_cases
from include.orchestration.release_tasks import steer_release

FORM = {
    "action": Param("pause", type="string", enum=list(ACTIONS), title="Action"),
    "reason": Param(
        type="string",
        minLength=1,
        maxLength=1000,
        title="Reason",
        description="Why you do it; kept in the audit log.",
    ),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Version",
        description="Of the model whose release is meant. Empty: the release in its steps. Needed "
        "to roll back a watched champion, and to abort what waits.",
    ),
    "until": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Until",
        description="Only for a freeze: when it is over.",
    ),
}


def define(use_case: UseCase) -> None:
    @dag(
        schedule=None,
        start_date=START,
        catchup=False,
        params=FORM,
        **dag_arguments(use_case, "control_release", __doc__),
    )
    def control_release() -> None:
        # Said once: again, it would be said of what has come in its place meanwhile. Who said it
        # sees that it was refused, and nobody else is to be woken by it.
        @task(retries=0, retry_policy=None, on_failure_callback=None)
        def steer() -> dict[str, Any]:
            return steer_release(use_case.name)

        steer()

    control_release()


for declared in use_cases():
    define(declared)
