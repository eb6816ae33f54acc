"""Facts of a trial: which partitions it runs, and when a training is possible."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from include.config import use_case_file
from include.config.settings import ROOT
from include.config.use_case_file import load
from include.features.spine import build_spine
from include.onboarding import draft, trial_facts
from include.onboarding.answers import Answers
from include.onboarding.profile import Table
from tests.builders.drafted import write_table
from tests.builders.intake import GOOD, HEAD, Intake


def test_the_spans_that_the_stages_look_back_on_add_up() -> None:
    """Each stage begins earlier than the next by what that one looks back on; the shipped use
    case is not refused.
    """
    use_case = load(ROOT / "include" / "usecases" / "repayment.yaml")
    keys = trial_facts.keys_by_stage(use_case, "2026-11-25")
    lengths = {stage: len(part) for stage, part in keys.items()}
    assert keys["ingest_data"][-1] == keys["validate_data"][-1] == "2026-11-25"
    # label.delay of 33 days before its as_of.
    assert keys["materialize_features"][-1] == "2026-10-24"
    assert lengths["materialize_features"] >= trial_facts.PERIODS + 7  # and the ttl
    assert (
        lengths["validate_data"] == lengths["materialize_features"] + 32 + 89
    )  # to the newest, and 90 days of which the first is there
    assert lengths["ingest_data"] == lengths["validate_data"] + 35  # label.lookback


def test_of_a_table_without_a_time_nothing_comes_a_day(tmp_path: Path) -> None:
    answers = Answers(snapshot=datetime(2024, 5, 1, tzinfo=UTC).date())
    text = draft.draft_table(Table(write_table(tmp_path)), answers).text
    case = use_case_file.parse(text, folder=tmp_path)
    at = [datetime(2024, 5, 1, tzinfo=UTC)] * 400
    rows = pa.table({"event_timestamp": pa.array(at, pa.timestamp("us", "UTC"))})
    said = trial_facts.describe_first_training(case, "2024-05-01", rows, 0.5)
    assert said.startswith("at once: it needs 200 mature decisions")
    assert said.endswith("of each class, and there are 400")
    said = trial_facts.describe_first_training(case, "2024-05-01", rows.slice(0, 150), 0.5)
    assert said.startswith("never: it needs 200 ")


def test_decisions_whose_moment_or_entity_was_corrected_are_asked_about(tmp_path: Path) -> None:
    """Order 1 moves by an hour, order 2 to another customer, and of order 3 the outcome changes."""
    intake = Intake(tmp_path)
    intake.put(
        f"{HEAD}{GOOD}1,1,2026-01-01T11:00:00Z,2026-01-03T11:00:00Z,10,0\n"
        "2,9,2026-01-01T11:00:00Z,2026-01-03T11:00:00Z,20,1\n"
        "3,1,2026-01-02T10:00:00Z,2026-01-03T11:00:00Z,30,0\n"
    )
    for key in ("2026-01-01", "2026-01-02"):
        intake.validate(key)
    assert not list(trial_facts.describe_moved(intake.use_case, intake.lake))
    intake.validate("2026-01-03")
    spine = build_spine(intake.lake, intake.use_case, intake.night("2026-01-09"))
    assert len(spine.mature) == 6, "what is asked about: of four orders"
    ((what, said),) = trial_facts.describe_moved(intake.use_case, intake.lake)
    assert what == "question"
    assert said.startswith("2 of 4 keys of orders (order_id)")
    assert "make 4 decisions" in said
