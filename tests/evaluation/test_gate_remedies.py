"""What can be done about each check: a line of YAML that parses, and lets the check pass."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from include.config.settings import ROOT
from include.config.use_case_file import parse
from include.evaluation import gate, gate_remedies
from include.evaluation.gate import Check
from include.models.metrics import Interval
from tests.builders.command_line import YAML
from tests.builders.remedy_lines import offered, pasted

USE_CASE = parse(YAML)
LABELS = np.array([0.0, 1.0] * 30)
INFORMED = np.linspace(0.2, 0.3, 60) + 0.05 * LABELS
CHECKS = {
    "mature_rows": gate.enough_rows(LABELS, 500),
    "censored_share": gate.censored(0.123, 0.05),
    "auc": gate.at_least("auc", "AUC", 0.557, 0.6),
    "max_auc": gate.believable(0.9931, 0.98, ["channel", "amount"]),
    "calibration_error": gate.calibrated(LABELS, INFORMED, 0.001, 7)[0],
    "over_baseline": gate.above("over_baseline", "over", -0.0123, 0.0),
    "opponent": gate.not_worse("difference", Interval(-0.02, -0.0412, 0.001), 0.01),
}
"""Of each id of the gate a check that is no pass."""
METRICS = {"calibration_error_by_chance": gate.calibrated(LABELS, INFORMED, 0.001, 7)[1]}
CARRIERS = ["channel", "amount"]


def told(check: Check) -> str:
    return gate_remedies.with_remedy(check, USE_CASE, METRICS, CARRIERS).remedy


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_offers_lines_that_a_use_case_takes(name: str) -> None:
    assert CHECKS[name].outcome != "pass"
    lines = offered(told(CHECKS[name]))
    assert lines, told(CHECKS[name])
    for line in lines:
        pasted(YAML, line)


def test_the_line_that_loosens_a_limit_is_just_enough() -> None:
    changed = {name: pasted(YAML, offered(told(check))[-1]) for name, check in CHECKS.items()}
    gates = {name: use_case.gates for name, use_case in changed.items()}
    again = {
        "mature_rows": gate.enough_rows(LABELS, gates["mature_rows"].min_rows),
        "censored_share": gate.censored(0.123, changed["censored_share"].label.max_censored),
        "auc": gate.at_least("auc", "AUC", 0.557, gates["auc"].min_auc),
        "max_auc": gate.believable(0.9931, gates["max_auc"].max_auc),
        "calibration_error": gate.calibrated(
            LABELS, INFORMED, gates["calibration_error"].max_calibration_error, 7
        )[0],
        "over_baseline": gate.above(
            "over_baseline", "over", -0.0123, gates["over_baseline"].over_baseline
        ),
        "opponent": gate.not_worse(
            "difference", Interval(-0.02, -0.0412, 0.001), gates["opponent"].margin
        ),
    }
    assert {name: check.outcome for name, check in again.items()} == dict.fromkeys(CHECKS, "pass")


def test_every_id_of_the_gate_is_tried_here() -> None:
    """The ids are the first arguments of every `Check(...)` in the package, and of its helpers."""
    written: set[str] = set()
    for path in Path(ROOT / "include" / "evaluation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                function = ast.unparse(node.func).rpartition(".")[2]
                first = node.args[0]
                if function in ("Check", "at_least", "above") and isinstance(first, ast.Constant):
                    written.add(str(first.value))
    assert written == {*CHECKS, "candidate", "release"}
    assert written - gate_remedies.REMEDIES.keys() == {"candidate", "release"}


@pytest.mark.parametrize("name", ["auc", "max_auc", "calibration_error", "over_baseline"])
def test_what_cannot_be_computed_asks_for_more_rows(name: str) -> None:
    held = Check(name, "name", None, 0.5, "hold", "not computable")
    assert "training: {split: {evaluation: 0.3}}" in told(held)


def test_a_larger_part_leaves_something_to_train_on() -> None:
    split = {"tune": 0.5, "evaluation": 0.3}
    full = parse(YAML + f"training: {{split: {split}}}")
    held = replace(CHECKS["mature_rows"], value=0)
    (line,) = offered(gate_remedies.with_remedy(held, full, {}, []).remedy)
    after = pasted(YAML, line).training.split
    assert after.tune + after.evaluation < 1


def test_an_exclusion_keeps_what_is_excluded_already() -> None:
    before = parse(YAML + "training: {exclude: [amount]}")
    text = gate_remedies.with_remedy(CHECKS["max_auc"], before, {}, ["channel"]).remedy
    assert "`training: {exclude: [amount, channel]}`" in text


def test_what_passed_or_has_no_line_is_left_as_it_is() -> None:
    passed = gate.censored(0.01, 0.05)
    assert gate_remedies.with_remedy(passed, USE_CASE, {}, []) is passed
    equal = Check("opponent", "difference", 0.0, -0.01, "hold", "equal: nothing to release")
    assert told(equal) == ""
    unknown = gate.censored(math.nan, 0.05)
    assert told(unknown).startswith("Train the partition again")


def test_more_rows_are_no_advice_where_the_rate_of_the_outcome_has_moved() -> None:
    failed = CHECKS["calibration_error"]
    assert "Calibrate on more rows" in told(failed)
    moved = METRICS | {"calibration_in_the_large": failed.value or 0.0}
    text = gate_remedies.with_remedy(failed, USE_CASE, moved, CARRIERS).remedy
    assert "The outcome's rate moves with time" in text
    assert offered(text) == offered(told(failed))[-1:]
