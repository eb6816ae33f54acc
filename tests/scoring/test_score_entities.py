"""The scored table: who is scored by which model, and a CSV that no spreadsheet runs."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError, EvergreenError, SourceError
from include.records.records import Model, Records
from include.scoring import score_entities
from tests.builders.judging import NOW, visits_use_case


def test_exported_cells_are_never_formulas(tmp_path: Path) -> None:
    texts = [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "  =1",
        "plain",
        "a=b",
        '"q"',
        None,
    ]
    path = tmp_path / "scores.csv"
    score_entities.export(
        path, pa.table({"who": texts, "score": [-0.5] * len(texts), "=head": texts})
    )
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["who", "score", "'=head"]
    assert [row[0] for row in rows] == [f"'{text}" for text in texts[:6] if text] + [
        "plain",
        "a=b",
        '"q"',
        "",
    ]
    assert {row[1] for row in rows} == {"-0.5"}
    assert not list(tmp_path.glob(".scores*"))


def test_a_csv_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SourceError, match=r"cannot be written .*--output"):
        score_entities.export(tmp_path / "taken" / "scores.csv", pa.table({"a": [1]}))
    assert os.listdir(tmp_path) == ["taken"]


class Scorer:
    """A predictor that gives what it is told."""

    schema = None

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def many(self, columns: Any) -> Any:
        return np.array(self.scores)


@pytest.fixture
def use_case() -> UseCase:
    return visits_use_case()


def model(version: int) -> Model:
    return Model("visits", version, f"sha256:{version}", "2026-01-01", NOW, "live", "f", "")


def entities(count: int) -> pa.Table:
    times = pa.array([NOW] * count, pa.timestamp("us", tz="UTC"))
    return pa.table({"customer_id": pa.array(range(count), pa.int64()), "event_timestamp": times})


def test_each_score_has_its_decision_and_its_model(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_entities, "columns_of", lambda frame, schema: frame)
    threshold = use_case.decision.threshold
    scorer: Any = Scorer([threshold, threshold - 0.01])
    rows = score_entities._score_rows(use_case, entities(2), scorer, model(3))
    assert rows.column_names == [
        "customer_id",
        "event_timestamp",
        "score",
        "decision",
        "version",
        "model_digest",
    ]
    decisions = [use_case.decision.at_or_above, use_case.decision.below]
    assert rows["decision"].to_pylist() == decisions, "the threshold itself is reached"
    assert set(rows["version"].to_pylist()) == {3}
    nobody = score_entities._score_rows(use_case, entities(0), scorer, model(3))
    assert (len(nobody), nobody.schema) == (0, rows.schema)


@pytest.mark.parametrize("scores", [[0.5, float("nan")], [0.5]], ids=["no number", "too few"])
def test_a_model_that_gives_no_numbers_writes_nothing(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch, scores: list[float]
) -> None:
    monkeypatch.setattr(score_entities, "columns_of", lambda frame, schema: frame)
    scorer: Any = Scorer(scores)
    with pytest.raises(EvergreenError, match=r"version 3 gave . scores that are no numbers"):
        score_entities._score_rows(use_case, entities(2), scorer, model(3))


def test_a_model_is_the_champion_or_the_one_that_is_named(tmp_path: Path) -> None:
    records = Records.open(Settings(home=tmp_path).records_address)
    records.migrate()
    with pytest.raises(ConfigError, match="visits has no champion yet"):
        score_entities._find_model(records, "visits", None)
    records.models.add(model(1))
    assert score_entities._find_model(records, "visits", 1).version == 1
    with pytest.raises(ConfigError, match=r"no model version 2; there are \[1\]"):
        score_entities._find_model(records, "visits", 2)
    records.close()
