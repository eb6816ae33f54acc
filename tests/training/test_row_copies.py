"""Rows without an id that are there several times: their copies stand in one part."""

from __future__ import annotations

import random

import pyarrow.compute as pc
import pytest

from include.models import metrics
from include.models.matrix import labels_of
from include.onboarding.try_data import try_data
from include.training import splits
from include.training.carrier_leaks import find_carriers
from tests.builders import stored
from tests.builders.installation import TO_JUDGEMENT, Installation

KEY = "2026-01-01"
YAML = """name: survey
history: {first: 2026-01-01, last: 2026-01-01}
entity: {name: row, key: row_id, type: string}
sources:
  rows:
    path: rows.csv
    snapshot: 2026-01-01
    key: [row_id]
    columns:
      row_id: {type: string, digest: row}
      income: {type: float64}
      visits: {type: float64}
      came: {type: int64}
label: {source: rows, column: came, label_time: event + 0s, delay: 0s}
features:
  facts: {grain: event, source: rows, columns: {income: float64, visits: float64}}
training: {split: {by: hash}}
gates: {min_rows: 20}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A judged table of noise, in which every row of class 1 is there three times."""
    home = tmp_path_factory.mktemp("copies")
    rng = random.Random(1)
    rows = [(rng.gauss(0, 1), rng.gauss(0, 1), int(rng.random() < 0.25)) for _ in range(900)]
    rows += [row for row in rows if row[2]] * 2
    rng.shuffle(rows)
    (home / "usecases").mkdir()
    (home / "usecases" / "survey.yaml").write_text(YAML)
    lines = ["income,visits,came", *(f"{one:.6f},{two:.6f},{came}" for one, two, came in rows)]
    (home / "usecases" / "rows.csv").write_text("\n".join(lines) + "\n")
    installed = Installation(home, "survey")
    for stage in TO_JUDGEMENT:
        assert installed.run(stage, KEY).state == "done", stage
    return installed


def test_copies_of_a_row_stand_in_one_part(made: Installation) -> None:
    rows = made.lake.read(stored.table(made.lake, "survey/training_set"), keys=[KEY])
    parts: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        parts.setdefault(row["row_id"].partition("-")[0], set()).add(row["split"])
    assert len(rows) > len(parts) == 900
    assert {len(each) for each in parts.values()} == {1}
    firsts = [row for row in rows.to_pylist() if row["row_id"].endswith("-1")]
    shares = splits.hash_shares([row["row_id"] for row in firsts], made.use_case.training.seed)
    assert [row["split"] == "evaluation" for row in firsts] == (shares >= 0.8).tolist(), (
        "a row that has no copy stays where its whole id puts it"
    )


def test_what_was_learnt_by_heart_is_no_skill(made: Installation) -> None:
    found = made.result("evaluate_model", KEY).outputs["metrics"]
    assert found["auc"] < 0.65, "there is nothing but noise to learn"
    rows = made.lake.read(stored.table(made.lake, "survey/training_set"), keys=[KEY])
    labels = labels_of(rows.filter(pc.equal(rows["split"], "evaluation")))
    ones, zeros = labels.sum(), (1 - labels).sum()
    # Two thirds of class 1 tell nothing new: by rows alone the interval would be narrower.
    by_rows = metrics.Z95 * ((ones + zeros + 1) / (12 * ones * zeros)) ** 0.5
    assert (found["auc_high"] - found["auc_low"]) / 2 > 1.2 * by_rows


def test_the_leak_gate_has_seen_no_copy_of_what_it_scores(made: Installation) -> None:
    rows = made.lake.read(stored.table(made.lake, "survey/training_set"), keys=[KEY])
    names = ["income", "visits"]
    tried = find_carriers(rows, made.use_case, labels_of(rows), dict.fromkeys(names, 0.5), names)
    assert tried.auc is not None
    assert tried.auc < 0.6


def test_the_check_says_how_many_are_copies(made: Installation) -> None:
    said = dict(try_data(made.use_case, made.settings).facts)
    rows = len(made.lake.read(stored.table(made.lake, "survey/training_set"), keys=[KEY]))
    assert said["copies in rows"].startswith(f"{rows - 900} of {rows} rows (")
    assert said["copies in rows"].endswith("are one entity, in one part of the training")
