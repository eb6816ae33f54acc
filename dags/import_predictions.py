"""Import what was answered into the lake, and keep the table small.

**When.** Once an hour, at a minute of the use case's own; by the form at any time. `check_drift`
imports too, before it judges. `load` also starts the candidate of a release that waits once nothing
is in its way: a freeze that is over by the clock ends by nobody's hand.

**Inputs and outputs.** `load` reads the closed segments of the prediction log under
`HOME/predictions` and appends their lines to the lake's table `predictions`, by the day of the
answer; a segment is removed once its rows are committed, and one that a killed run left behind is
recognised. Lines that cannot be read are set aside as `SEGMENT.N.bad` beside the segments, with an
audit row (`predictions.set_aside`), and keep nothing else back. `tidy` puts the files of each day
that is over together, once, removes the days that are older than `log.retention` (audit row
`predictions.expired`), and deletes files that nobody reads any more; where `load` found nothing it
is skipped, but for once a day. First of all `load` delivers the alerts that are due of releases and
failed tasks (EVERGREEN_ALERT_URL).

**When it fails.** Nothing is lost: segments stay where they are until their rows are in the lake.
`Busy`: another import is at work. `SourceError`: the lake or the disk cannot be written; free space
or mend permissions, then clear the task. Or nodes serve and none has ever shipped to
EVERGREEN_SEGMENTS_URI: set it alike here and at the nodes. Before the first node starts `not_begun`
in the task's result says that none ships yet. `evergreen import-predictions USE_CASE` does the same
from a shell.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from include.config.use_case import UseCase
from include.orchestration.dag_defaults import START, dag_arguments, hourly, use_cases
from include.orchestration.predictions import load_log, tidy_log


def define(use_case: UseCase) -> None:
    @dag(
        schedule=hourly(use_case),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        **dag_arguments(use_case, "import_predictions", __doc__),
    )
    def import_predictions() -> None:
        @task
        def load() -> dict[str, Any]:
            return load_log(use_case.name, tidied_by="tidy")

        @task
        def tidy() -> dict[str, Any]:
            return tidy_log(use_case.name)

        load() >> tidy()

    import_predictions()


for declared in use_cases():
    define(declared)
