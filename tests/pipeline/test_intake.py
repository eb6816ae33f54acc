"""What a partition is meant for, by the way in which its run came about."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.pipeline.intake import decide_intake, record_intake
from tests.builders.intake import Intake


@pytest.mark.parametrize(
    ("run_type", "key", "expected"),
    [
        ("scheduled", "2026-06-30", ("live", "deployed")),
        ("scheduled", "2026-06-29", ("live", "deployed")),
        ("manual", "2026-06-30", ("live", "deployed")),
        ("asset_materialization", "2026-06-30", ("live", "deployed")),
        ("manual", "2026-06-29", ("backfill", "judged")),
        ("backfill", "2026-06-30", ("backfill", "judged")),
        ("backfill", "2026-06-01", ("backfill", "judged")),
    ],
)
def test_only_the_schedule_and_a_form_run_of_the_newest_are_live(
    run_type: str, key: str, expected: tuple[str, str]
) -> None:
    assert decide_intake(run_type, key, "2026-06-30") == expected


def test_what_is_recorded_only_rises_and_names_who_raised_it(tmp_path: Path) -> None:
    intake = Intake(tmp_path)

    def record(run_type: str, actor: str) -> tuple[str, str]:
        return record_intake(intake.settings, "shop", "2026-01-01", run_type=run_type, actor=actor)

    assert record("manual", "ann") == ("backfill", "judged")
    assert record("scheduled", "airflow") == ("live", "deployed")
    assert record("backfill", "bob") == ("live", "deployed")
    (partition,) = intake.records.partitions.of("shop")
    assert (partition.mode, partition.actor) == ("live", "airflow")
