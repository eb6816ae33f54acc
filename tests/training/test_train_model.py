"""Training: splits, determinism, leaks, what is recorded, and what happens when it is done
twice.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from include.config.settings import Settings
from include.config.use_case import Split
from include.config.use_case_file import parse
from include.errors import ConfigError, SourceError
from include.models import matrix, mlflow_registry, predictor
from include.training import fitting, splits
from tests.builders import stored
from tests.builders.judging import (
    KEY,
    KNOBS,
    NAME,
    YAML,
    Bench,
    visits_frame,
    visits_use_case,
)

# fitting


def parts(rows: pa.Table) -> fitting.Parts:
    moments = np.asarray(rows["event_timestamp"].cast(pa.int64()))
    return splits.assign([0] * len(rows), moments, Split(), 7, splits.boundaries(moments, Split()))


def test_equal_frames_give_equal_bundles_and_a_changed_row_another() -> None:
    rows = visits_frame()
    first, second = (fitting.fit(rows, parts(rows), visits_use_case(), "f") for _ in range(2))
    assert first.files == second.files
    changed = visits_frame(lambda columns: columns["income"].__setitem__(3, 9.0))
    assert (
        fitting.fit(changed, parts(changed), visits_use_case(), "f").files["model.txt"]
        != first.files["model.txt"]
    )
    assert b"[num_threads: 1]" in first.files["model.txt"]
    assert first.metrics["evaluation_auc"] > 0.7


def test_nothing_of_the_evaluation_rows_reaches_the_bundle() -> None:
    rows = visits_frame()
    judged = parts(rows) == splits.PARTS.index(splits.EVALUATION)

    def mark(columns: dict[str, Any]) -> None:
        """Plant what would be learnt at once: the outcome itself as a number, and turned around
        as the label.
        """
        for place in np.flatnonzero(judged).tolist():
            columns["income"][place] = 1e6 * (1 + columns["label"][place])
            columns["label"][place] = 1 - columns["label"][place]

    marked = visits_frame(mark)
    assert not marked.equals(rows)
    assert (
        fitting.fit(marked, parts(rows), visits_use_case(), "f").files
        == fitting.fit(rows, parts(rows), visits_use_case(), "f").files
    )


def test_rounds_written_as_a_parameter_are_the_most_of_both_models() -> None:
    rows = visits_frame()
    case = visits_use_case()
    asked = case.training.model_copy(
        update={"params": {**case.training.params, "num_iterations": 40}}
    )
    fitted = fitting.fit(rows, parts(rows), case.model_copy(update={"training": asked}), "f")
    assert fitted.rounds <= 40
    assert fitted.files["model.txt"].count(b"\nTree=") == fitted.rounds


def test_calibration_is_fitted_on_tune_rows_only() -> None:
    generator = np.random.default_rng(1)
    raw = generator.normal(size=5000)
    labels = (generator.random(5000) < 1 / (1 + np.exp(-(2.0 * raw - 0.5)))).astype(float)
    slope, offset = fitting.platt(raw, labels)
    assert (slope, offset) == (pytest.approx(2.0, abs=0.15), pytest.approx(-0.5, abs=0.1))
    assert fitting.platt(-raw, labels) == (1.0, 0.0)
    assert fitting.platt(np.zeros(10), np.array([0.0, 1.0] * 5)) == (
        pytest.approx(1.0),
        pytest.approx(0.0),
    )


def test_labels_that_are_no_outcome_are_refused() -> None:
    with pytest.raises(SourceError, match="neither 0 nor 1"):
        matrix.labels_of(visits_frame(lambda columns: columns["label"].__setitem__(0, 2.0)))


# the stage


def test_a_training_records_everything_that_made_it(bench: Bench) -> None:
    report = bench.run("train_model", KEY)
    model, manifest = bench.model(KEY), bench.model(KEY).manifest
    assert (report.state, model.version, model.partition, model.mode, model.generation) == (
        "done",
        1,
        KEY,
        "live",
        0,
    )
    assert model.pins == predictor.serving_pins()
    assert model.as_of == datetime(2026, 2, 6, tzinfo=UTC)
    predictor.trial_load(model.bundle, model.model_digest)
    wanted = (
        "training_set tables feature_set git_commit lock libraries split counts "
        "mode as_of partition"
    )
    assert all(manifest[name] for name in wanted.split())
    assert manifest["tables"] == {
        f"{NAME}/labels": 0,
        next(name for name in manifest["tables"] if "features" in name): 0,
    }
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    assert len(rows) == manifest["training_set"]["rows"] == manifest["counts"]["used"]
    assert sorted(set(rows["split"].to_pylist())) == ["evaluation", "train", "tune"]
    reference = manifest["reference"]
    assert Path(reference["path"]).parent == Path(model.bundle).parent
    sample = pq.read_table(reference["path"])
    assert (len(sample), reference["entities"]) == (reference["rows"], 90)
    assert {"income", "visits", "region"} <= set(sample.column_names)
    assert json.loads(json.dumps(report.outputs)) == report.outputs


def test_a_rerun_reuses_and_a_lost_record_finds_the_same_version(bench: Bench) -> None:
    first = bench.run("train_model", KEY)
    assert bench.run("train_model", KEY).reused
    bench.forget_result("train_model", KEY)
    again = bench.run("train_model", KEY)
    assert not again.reused
    assert (again.digest, again.outputs["version"], again.outputs["run_id"]) == (
        first.digest,
        1,
        first.outputs["run_id"],
    )
    assert [model.version for model in bench.records.models.of(NAME)] == [1]
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    assert len(rows) == first.outputs["training_set"]["rows"]


def test_force_compares_and_registers_nothing(bench: Bench) -> None:
    bench.run("train_model", KEY)
    versions = bench.lake.version(stored.table(bench.lake, f"{NAME}/training_set"))
    assert bench.run("train_model", KEY, force=True).reason == "equal to the record"
    assert [model.version for model in bench.records.models.of(NAME)] == [1]
    assert bench.lake.version(stored.table(bench.lake, f"{NAME}/training_set")) == versions


def test_a_backfill_that_becomes_live_shows_so_in_the_registry(bench: Bench) -> None:
    bench.run("train_model", KEY, mode="backfill")
    report = bench.run("train_model", KEY, mode="live")
    assert (report.reused, report.effects) == (True, {"mode": "live"})
    assert bench.run("train_model", KEY, mode="live").effects == {}


def test_too_few_mature_rows_is_a_success_without_a_candidate(bench: Bench) -> None:
    bench.configure(min_rows=5000)
    report = bench.run("train_model", KEY)
    assert (report.state, report.outputs["candidate"]) == ("done", None)
    assert "too few mature rows: the evaluation part has" in report.reason
    assert bench.records.models.of(NAME) == []
    assert mlflow_registry.aliases(bench.settings, NAME) == {}
    early = bench.run("train_model", "2026-01-02")
    assert (early.state, early.outputs["candidate"]) == ("done", None)


def test_a_leak_refuses_the_stage_and_leaves_no_model(bench: Bench) -> None:
    bench.write(lambda columns: columns.update(visits=columns["label"].astype(int)))
    with pytest.raises(ConfigError, match="leaks through visits"):
        bench.run("train_model", KEY)
    assert bench.records.models.of(NAME) == []
    refusals = bench.records.audit.entries(NAME, action="stage.refused")
    assert "leaks through visits" in refusals[-1].details["reason"]


def test_out_of_fold_auc_on_real_data_is_what_is_published_and_no_leak() -> None:
    """UCI credit default: LightGBM reaches .779 in the literature, the best known is .791; above
    .80 something leaks.
    """
    path = Settings().data_dir / "uci_credit_default" / "UCI_Credit_Card.csv"
    if not path.exists():
        pytest.skip(
            f"{path} is not there; set EVERGREEN_DATA_DIR to the folder of the real data sets"
        )
    table = csv.read_csv(path)
    names = [
        name
        for name in table.column_names
        if name.startswith(("LIMIT", "EDUCATION", "PAY_", "BILL_"))
    ]
    columns = ", ".join(f"{name}: float64" for name in names)
    text = YAML.format(**{**KNOBS, "rounds": 300}).replace(
        "income: float64, visits: int64,\n      region: string", columns
    )
    credit = parse(
        text.replace(
            "early_stopping: 10, params: {min_data_in_leaf: 20, learning_rate: 0.1}",
            "early_stopping: 30",
        )
    )
    label = next(name for name in table.column_names if name.startswith("default"))
    moment = pa.array(np.zeros(len(table), dtype="datetime64[us]"), pa.timestamp("us", tz="UTC"))
    rows = pa.table(
        {
            "customer_id": table["ID"],
            "event_timestamp": moment,
            "label": table[label].cast(pa.float64()),
        }
    )
    for name in names:
        rows = rows.append_column(name, table[name].cast(pa.float64()))
    assert 0.775 <= fitting.out_of_fold_auc(rows, credit) <= 0.80
