"""The opponent on the candidate's rows: seen, unreadable, or without its features."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.errors import ConfigError
from include.lake.digests import digest
from include.models import metrics as statistics
from include.models.loading import load_model
from include.models.matrix import columns_of
from include.records.schema import ModelRow, ResultRow
from tests.builders.judging import EARLY, MIDDLE, NAME, Bench


def show_rows(bench: Bench, version: int, rows: list[dict[str, Any]]) -> None:
    """Put rows among those that a model was trained on, as another split would have."""
    with bench.records.transaction() as session:
        row = session.get_one(ModelRow, (NAME, version))
        made = row.manifest["training_set"]
        theirs = bench.lake.read(
            made["table"], keys=[row.partition], version=made["table_version"]
        ).drop_columns(["partition"])
        seen = pa.Table.from_pylist(rows, theirs.schema).set_column(
            theirs.schema.get_field_index("split"), "split", pa.array(["train"] * len(rows))
        )
        both = pa.concat_tables([theirs.filter(pc.not_equal(theirs["split"], "evaluation")), seen])
        number = bench.lake.replace(made["table"], row.partition, both)
        changed = {
            "digest": digest(both, sort_by=["event_timestamp", "customer_id"]),
            "rows": len(both),
            "table_version": number,
        }
        row.manifest = {**row.manifest, "training_set": {**made, **changed}}


def evaluation_rows(bench: Bench, key: str) -> list[dict[str, Any]]:
    made = bench.model(key).manifest["training_set"]
    rows = bench.lake.read(made["table"], keys=[key], version=made["table_version"]).drop_columns(
        ["partition"]
    )
    return [row for row in rows.to_pylist() if row["split"] == "evaluation"]


def test_a_champion_that_has_seen_more_than_a_tenth_of_the_rows_is_a_hold(bench: Bench) -> None:
    bench.judged("2026-02-15")
    bench.release(1, EARLY)
    outputs = bench.judged(MIDDLE)
    assert outputs["verdict"] == "hold"
    said = (
        r"version 1 was trained or tuned on \d+ of 630 evaluation rows, more than 10%: the "
        r"champion has seen these rows"
    )
    assert re.fullmatch(said, outputs["reasons"][0])


def test_rows_that_the_champion_has_seen_are_left_out_and_counted(bench: Bench) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.run("train_model", MIDDLE)
    rows = evaluation_rows(bench, MIDDLE)
    show_rows(bench, 1, rows[::12])
    outputs = bench.run("evaluate_model", MIDDLE).outputs
    seen = len(rows[::12])
    assert (outputs["left_out"], outputs["compared"]) == (seen, len(rows) - seen)
    assert outputs["verdict"] == "pass", outputs["reasons"]
    assert bench.records.audit.entries(NAME, action="model.judged")[-1].details["left_out"] == seen
    assert (
        f"{seen} rows that the opponent was trained or tuned on"
        in Path(outputs["report"]).read_text()
    )
    kept = [row for number, row in enumerate(rows) if number % 12]
    asked = pa.Table.from_pylist(kept)
    labels = np.array([row["label"] for row in kept])
    expected = []
    for key in (MIDDLE, EARLY):
        predictor = load_model(bench.model(key).bundle, bench.model(key).model_digest)
        expected.append(statistics.auc(labels, predictor.many(columns_of(asked, predictor.schema))))
    assert outputs["metrics"]["opponent_auc"] == pytest.approx(expected[1], abs=1e-12)
    assert outputs["metrics"]["difference"] == pytest.approx(expected[0] - expected[1], abs=1e-12)


def test_a_class_that_the_champion_has_seen_too_much_of_is_a_hold(bench: Bench) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.run("train_model", MIDDLE)
    rows = evaluation_rows(bench, MIDDLE)
    zeros = [row for row in rows if not row["label"]]
    show_rows(bench, 1, zeros[:5])
    bench.configure(min_rows=len(zeros) - 4)
    outputs = bench.run("evaluate_model", MIDDLE).outputs
    assert outputs["verdict"] == "hold"
    assert f"0 are left, each class needs {len(zeros) - 4}" in outputs["reasons"][0]


def test_a_champion_whose_bundle_cannot_be_read_is_no_verdict_and_is_judged_again(
    bench: Bench,
) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.run("train_model", MIDDLE)
    bundle = Path(bench.model(EARLY).bundle)
    away = bundle.rename(bundle.with_name("away"))
    for _ in range(2):
        report = bench.run("evaluate_model", MIDDLE)
        assert (report.state, report.reused, report.outputs["verdict"]) == (
            "unreadable",
            False,
            "hold",
        )
        assert report.reason.startswith("version 1 cannot be asked: ")
    assert len(bench.records.audit.entries(NAME, action="evaluate_model.unreadable")) == 1
    assert [
        entry.subject for entry in bench.records.audit.entries(NAME, action="model.judged")
    ] == [EARLY]
    with pytest.raises(ConfigError, match="no record to compare with"):
        bench.run("evaluate_model", MIDDLE, force=True)
    away.rename(bundle)
    report = bench.run("evaluate_model", MIDDLE)
    assert (report.state, report.reused) == ("done", False)
    assert report.outputs["opponent"] == 1
    assert bench.run("evaluate_model", MIDDLE).reused
    assert bench.run("evaluate_model", MIDDLE, force=True).reason == "equal to the record"


def test_the_opponent_is_scored_on_its_own_feature_set(bench: Bench) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.configure(more=", extra: float64")
    noise = np.random.default_rng(1)
    bench.write(
        lambda columns: columns.update(extra=noise.normal(size=len(columns["label"]))), recorded=60
    )
    outputs = bench.judged(MIDDLE)
    assert bench.model(MIDDLE).feature_set != bench.model(EARLY).feature_set
    assert (outputs["opponent"], outputs["verdict"]) == (1, "pass"), outputs["reasons"]
    assert outputs["metrics"]["opponent_auc"] > 0.7


def test_an_opponent_without_its_features_is_a_hold_until_they_are_filled(bench: Bench) -> None:
    """Joined, a set that was never computed is null: the champion was asked without its
    features, lost, and the gate passed.
    """
    bench.judged(EARLY)
    bench.release(1, EARLY)
    theirs = bench.model(EARLY).feature_set
    bench.configure(more=", extra: float64")
    noise = np.random.default_rng(1)
    bench.write(
        lambda columns: columns.update(extra=noise.normal(size=len(columns["label"]))), recorded=60
    )
    # The last one too: the row of a decision before may have arrived as late as that.
    lost = [*(f"2026-01-{day}" for day in range(20, 32)), MIDDLE]
    taken = bench.forget_features(theirs, lost)
    outputs = bench.judged(MIDDLE)
    assert outputs["verdict"] == "hold"
    (reason,) = outputs["reasons"]
    said = (
        r"version 1 cannot be asked, its features are not there for 13 of \d+ partitions "
        r"\(2026-01-20 to 2026-02-06\)\. Fill"
    )
    assert re.match(said, reason)
    assert "opponent_auc" not in outputs["metrics"]
    assert bench.run("evaluate_model", MIDDLE).reused
    with bench.records.transaction() as session:
        for key, made in taken.items():
            row = session.get_one(ResultRow, (NAME, key, "materialize_features"))
            row.outputs = {
                **row.outputs,
                "feature_sets": {**row.outputs["feature_sets"], theirs: made},
            }
    again = bench.run("evaluate_model", MIDDLE)
    assert (again.reused, again.outputs["verdict"]) == (False, "pass"), again.outputs["reasons"]
    assert again.outputs["metrics"]["opponent_auc"] > 0.7
