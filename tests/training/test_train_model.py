"""Training: splits, determinism, leaks, what is recorded, and what happens when it is done
twice.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from include.artefacts.store import ArtefactStore
from include.errors import ConfigError, SourceError
from include.models import matrix, mlflow_registry
from include.models.kinds import DEFAULT, kind_of
from include.models.pins import serving_pins
from tests.builders import stored
from tests.builders.bundles import try_bundle
from tests.builders.judging import (
    KEY,
    NAME,
    Bench,
    visits_frame,
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
    assert model.pins == serving_pins(kind_of(DEFAULT))
    assert model.as_of == datetime(2026, 2, 6, tzinfo=UTC)
    try_bundle(model.bundle, model.model_digest)
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
    assert (model.reference_uri, model.bundle_uri) == (
        reference["uri"],
        report.outputs["bundle_uri"],
    )
    store = ArtefactStore.of(bench.settings)
    assert store.get(str(model.bundle_uri)) == Path(model.bundle)
    sample = pq.read_table(store.get(reference["uri"]) / "reference.parquet")
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
