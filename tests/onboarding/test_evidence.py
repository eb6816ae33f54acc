"""What rows say of when a column was written: alone, in one class only, beside a twin."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from include.onboarding.evidence import TELLS_ALONE, Bin, Evidence, _auc, _one_class
from include.onboarding.profile import Table
from tests.builders.drafted import N, drafted, orders

LABELS = orders()["returned"]
RNG = random.Random(8)


def test_the_area_under_the_curve_is_that_of_the_rates() -> None:
    perfect = [Bin("a", (50, 50), (50, 50)), Bin("b", (0, 50), (0, 50))]
    even = [Bin("a", (25, 50), (25, 50)), Bin("b", (25, 50), (25, 50))]
    assert _auc(perfect) == 1
    assert _auc(even) == 0.5
    # Of rows that stand alone each half says nothing of the other.
    alone = [
        *(Bin(str(n), (n % 2, 1), (0, 0)) for n in range(200)),
        *(Bin(f"{n}b", (0, 0), (n % 2, 1)) for n in range(200)),
    ]
    assert _auc(alone) == 0.5
    assert _auc([Bin("a", (50, 50), (50, 50))]) == 0.5


def test_one_class_only_is_named_where_chance_does_not_give_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n1\n")
    (column,) = Table(path).columns
    half = [Bin("a", (100, 200), (100, 200))]
    pure = Bin("closed", (0, 30), (0, 30))
    assert _one_class([*half, pure], [], column) == "closed (60 rows)"
    assert _one_class([*half, Bin(None, (30, 30), (30, 30))], [], column) == "no value (60 rows)"
    assert _one_class([*half, Bin("2", (0, 30), (0, 30))], [1.0, 5.0], column).startswith(
        "5 or more"
    )
    assert _one_class([*half, Bin("few", (0, 5), (0, 5))], [], column) == ""


@pytest.mark.parametrize("name", ["duration", "amount_charged", "settled_amount"])
def test_a_column_that_tells_and_sounds_late_is_taken_for_written_later(
    tmp_path: Path, name: str
) -> None:
    values = [round(label + RNG.gauss(0, 0.8), 3) for label in LABELS]
    use_case, text = drafted(tmp_path, orders(returned=LABELS, **{name: values, "plain": values}))
    assert name not in use_case.feature_types
    assert "plain" in use_case.feature_types
    line = next(line for line in text.splitlines() if line.strip().startswith(f"# {name}:"))
    assert "guessed: written after the decision; sounds written after the outcome" in line
    # Uncommented, the line is a feature again.
    assert line.strip().startswith(f"# {name}: float64  # ")


def test_a_column_that_tells_alone_is_taken_for_written_later_whatever_its_name(
    tmp_path: Path,
) -> None:
    values = [f"{label}x" for label in LABELS]
    use_case, text = drafted(tmp_path, orders(returned=LABELS, code=values))
    assert "code" not in use_case.feature_types
    assert "tells the outcome alone (AUC 1.00)" in text
    assert Evidence(TELLS_ALONE - 0.01).written_later(Table(tmp_path / "t.csv").columns[0]) is False


def test_a_twin_that_differs_where_the_outcome_is_another_is_taken_for_written_later(
    tmp_path: Path,
) -> None:
    rng = random.Random(2)
    reserved = [rng.choice("ABC") for _ in range(N)]
    assigned = ["D" if not LABELS[n] and n % 5 == 0 else reserved[n] for n in range(N)]
    rows = orders(returned=LABELS, reserved_room_type=reserved, assigned_room_type=assigned)
    use_case, text = drafted(tmp_path, rows)
    assert "reserved_room_type" in use_case.feature_types
    assert "assigned_room_type" not in use_case.feature_types
    assert 'differs from "reserved_room_type" in' in text


def test_what_was_over_before_the_decision_is_not_marked(tmp_path: Path) -> None:
    values = [label + RNG.gauss(0, 0.5) for label in LABELS]
    rows = orders(returned=LABELS, previous_cancellations=values)
    assert "previous_cancellations" in drafted(tmp_path, rows)[0].feature_types
