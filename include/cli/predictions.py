"""Command about what was answered: import-predictions."""

from __future__ import annotations

from include.cli.context import (
    UseCaseArgument,
    actor,
    current_settings,
    find_use_case,
    open_records,
)
from include.cli.output import print_line


def import_predictions(use_case: UseCaseArgument) -> None:
    """Import the prediction log into the lake now, and tidy it; Airflow does so every hour.

    Days that are older than `log.retention` are removed. Lines that cannot be read are set aside
    beside the segments, and told. Of a release in its steps, parity of features and AUC are
    looked at anew.
    """
    from include.clock import utc_now
    from include.deployment.gathered import gather
    from include.pipeline.lakes import open_lake
    from include.predictions.import_segments import import_closed
    from include.predictions.retention import tidy

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records, lake = open_records(settings), open_lake(settings)
    imported = import_closed(settings, lake, records, case.name, at=utc_now(), actor=actor())
    print_line(f"{imported.lines} predictions of {imported.segments} segments imported")
    if imported.not_begun:
        print_line(imported.not_begun)
    if imported.set_aside:
        print_line(
            f"{imported.set_aside} lines could not be read and are set aside in "
            f"{' and '.join(imported.aside_in)}; `evergreen audit list` says why"
        )
    for name in imported.waiting:
        print_line(f"segment {name} cannot be read and stays where it is; mend its permissions")
    if metrics := gather(settings, lake, records, case, utc_now()):
        print_line(
            f"{', '.join(metrics)} of the release under way: `evergreen release status {case.name}`"
        )
    tidied = tidy(settings, lake, records, case, at=utc_now(), actor=actor())
    if tidied.compacted:
        print_line(f"{len(tidied.compacted)} days compacted")
    if tidied.expired:
        rows = sum(tidied.expired.values())
        print_line(f"{rows} predictions older than log.retention removed")
