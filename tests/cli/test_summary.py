from __future__ import annotations

from typing import Any

import pytest

from include.cli.summary import describe_run
from include.pipeline.execution import Report

PARTS = {"train": {"rows": 60, "positive": 20}, "tune": {"rows": 20, "positive": 5}, "mature": 100}


def report(stage: str, **outputs: Any) -> Report:
    return Report(
        stage=stage,
        use_case="shop",
        key="2026-01-01",
        state="done",
        digest="sha256:0",
        seconds=0.1,
        outputs=outputs,
    )


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        (
            report(
                "train_model",
                version=3,
                counts=PARTS,
                metrics={"first_model_tune_auc": 0.81234, "evaluation_auc": 0.8},
            ),
            [
                "rows train 60 (20 of class 1), tune 20 (5 of class 1)",
                "candidate 3, AUC of first model tune 0.8123",
            ],
        ),
        (report("train_model", candidate=None, counts={}, reason="too few"), []),
        (
            report(
                "evaluate_model",
                verdict="fail",
                reasons=["AUC is 0.5"],
                metrics={"auc": 0.5},
                report="/r/evaluation.html",
            ),
            ["AUC 0.5000", "verdict fail", "AUC is 0.5", "report /r/evaluation.html"],
        ),
        (
            report(
                "evaluate_model",
                verdict="pass",
                opponent=2,
                metrics={
                    "auc": 0.8,
                    "opponent_auc": 0.7,
                    "difference": 0.1,
                    "difference_low": 0.05,
                    "difference_high": 0.15,
                },
            ),
            ["AUC 0.8000, model 2 0.7000, difference 0.1000 (0.0500 to 0.1500)", "verdict pass"],
        ),
        (
            report("evaluate_model", verdict="hold", reasons=["too few", "censored"], metrics={}),
            ["verdict hold", "too few", "censored"],
        ),
        (
            report(
                "check_drift",
                verdict="pass",
                limit=0.2,
                features={"a": {"psi": 0.01}, "b": {"psi": None}, "c": {"psi": 0.1}},
            ),
            ["greatest PSI c 0.1000, a 0.0100; the limit is 0.2", "verdict pass"],
        ),
        (report("deploy_model", champion=4, generation=7), ["champion is model 4, generation 7"]),
        (report("ingest_data", sources={}), []),
    ],
)
def test_a_run_tells_what_a_person_wants_to_know_of_it(made: Report, lines: list[str]) -> None:
    assert list(describe_run(made)) == [f"{made.stage} 2026-01-01: {line}" for line in lines]
