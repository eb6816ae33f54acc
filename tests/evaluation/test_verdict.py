"""What packaging and deployment are told of a verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import ArtefactError
from include.evaluation import verdict


def result(state: str = "done", reason: str = "", **outputs: Any) -> Any:
    return SimpleNamespace(state=state, reason=reason, outputs=outputs)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (None, "it is not judged: evaluate_model has not run"),
        (result("unreadable", "disk full", verdict="hold"), "it is not judged: disk full"),
        (result(verdict="fail", reasons=["a", "b"]), "the verdict is fail: a; b"),
        (result(verdict="hold"), "the verdict is hold: no reason recorded"),
        (result(), "the verdict is hold: no reason recorded"),
        (result(verdict="pass"), None),
    ],
)
def test_all_but_a_recorded_pass_is_a_no_with_its_reason(evaluation: Any, said: str | None) -> None:
    assert verdict.not_passed(evaluation) == said


def test_a_record_of_another_form_is_no_verdict() -> None:
    with pytest.raises(ArtefactError, match="run the stage again"):
        verdict.not_passed(result(verdict="maybe"))
