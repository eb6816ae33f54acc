"""Errors of reading are no findings: which they are, and the outcome that is recorded."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from include.errors import ArtefactError, ConfigError, MissingPartition, Unavailable
from include.pipeline.execution import Execution
from include.pipeline.unseen import UNSEEN, unreadable_outcome
from tests.builders.intake import Intake

KEY = "2026-01-01"


@pytest.mark.parametrize(
    ("error", "is_unseen"),
    [
        (ArtefactError("damaged"), True),
        (Unavailable("no answer"), True),
        (FileNotFoundError("away"), True),
        (TimeoutError("late"), True),
        (duckdb.IOException("cut off"), True),
        (duckdb.BinderException("no such column"), False),
        (ConfigError("wrong"), False),
        (MissingPartition("not there"), False),
        (ValueError("a defect"), False),
    ],
)
def test_only_an_error_of_reading_is_unseen(error: Exception, is_unseen: bool) -> None:
    assert isinstance(error, UNSEEN) is is_unseen


def test_what_could_not_be_read_is_a_hold_with_one_audit_row_a_reason(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    intake.ask(KEY)
    context = Execution.begin("evaluate_model", "shop", settings=intake.settings).context(KEY)

    def outcome(error: Exception) -> tuple[str | None, dict[str, object]]:
        made = unreadable_outcome(context, "evaluate_model", error, {"opponent": 1})
        assert made.state == "unreadable"
        (entry,) = made.entries
        return entry.once, made.outputs

    once, outputs = outcome(ArtefactError("the bundle is damaged\nat line 3"))
    assert outputs == {
        "verdict": "hold",
        "reasons": ["the bundle is damaged"],
        "error": "ArtefactError",
        "opponent": 1,
    }
    assert outcome(ArtefactError("the bundle is damaged")) == (once, outputs)
    other_once, other = outcome(TimeoutError())
    assert other_once != once
    assert (other["reasons"], other["error"]) == (["TimeoutError"], "Unavailable")
