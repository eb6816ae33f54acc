"""A past day whose model was collected is rebuilt: with the same digests and the same files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.artefacts.store import ArtefactStore
from include.clock import utc_now
from include.errors import ArtefactError
from include.models import mlflow_registry
from include.models.bundle import verify_bundle
from include.models.mlflow_client import connected
from include.records.records import Model
from include.retention import collect_garbage
from include.retention.collect_garbage import Collected
from tests.builders import serving
from tests.builders.judging import EARLY, LATE, MIDDLE, NAME, Bench, new_bench
from tests.builders.mlflow_database import copy_database
from tests.retention.place import Home


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = new_bench(tmp_path / "home")
    made.write(recorded=60)
    return made


def collect(bench: Bench, days: int = 3) -> Collected:
    text = (bench.home / "usecases" / f"{NAME}.yaml").read_text()
    if "retention" not in text:
        (bench.home / "usecases" / f"{NAME}.yaml").write_text(text + "retention: {models: 1}\n")
    return collect_garbage.collect(
        bench.settings,
        bench.records,
        bench.use_case,
        at=utc_now() + timedelta(days=days),
        actor="test",
        hours=0,
    )


def model(bench: Bench, version: int) -> Model:
    found = bench.records.models.get(NAME, version)
    assert found is not None
    return found


def test_a_past_day_is_rebuilt_with_equal_digests(bench: Bench) -> None:
    trained = {key: bench.run("train_model", key) for key in (EARLY, MIDDLE, LATE)}
    judged = bench.run("evaluate_model", MIDDLE)
    assert bench.run("evaluate_model", LATE).outputs["verdict"] == "pass"
    store = ArtefactStore.of(bench.settings)
    sample = store.get(str(model(bench, 1).reference_uri)) / "reference.parquet"
    before = sample.read_bytes()
    done = collect(bench)
    assert (done.versions, done.put_off) == ([1, 2], [])
    kept = model(bench, 3)
    assert [each.uri for each in store.entries("bundles", NAME)] == [kept.bundle_uri]
    assert [each.uri for each in store.entries("references", NAME)] == [kept.reference_uri]
    runs = [path for path in (bench.home / "mlartifacts" / NAME).iterdir() if path.is_dir()]
    assert [path.name for path in runs] == [model(bench, 3).run_id]
    assert mlflow_registry.count_entries(bench.settings, NAME) == {"model versions": 1, "runs": 1}
    assert collect(bench).found == []

    # What needs the files says so, and the record stands.
    with pytest.raises(ArtefactError, match=rf"version 2 .*train_model .*--partition {MIDDLE}"):
        bench.run("evaluate_model", MIDDLE, force=True)
    assert bench.run("evaluate_model", MIDDLE).digest == judged.digest

    for key, version in ((EARLY, 1), (MIDDLE, 2)):
        again = bench.run("train_model", key)
        assert (again.reused, again.digest) == (False, trained[key].digest)
        whole = model(bench, version)
        assert whole.collected_at is None
        verify_bundle(whole.bundle, whole.model_digest)
        assert bench.run("train_model", key).reused
    assert sample.read_bytes() == before
    assert bench.run("evaluate_model", MIDDLE, force=True).reason == "equal to the record"
    assert bench.run("train_model", LATE, force=True).reason == "equal to the record"
    collected = collect(bench)
    assert collected.versions == [1, 4], "one folder; 5 is the newest, 2 its equal, 3 waits"


def test_artefacts_of_a_person_s_run_in_our_experiment_stay(home: Home) -> None:
    """Such a run has none of our tags; a folder whose run MLflow does not know goes."""
    copy_database(home.settings.home)
    folder = home.settings.home / "mlartifacts" / serving.NAME
    with connected(home.settings) as client:
        experiment = client.create_experiment(serving.NAME, folder.as_uri())
        run = client.create_run(experiment).info.run_id
    for name in (run, "0" * 32):
        (folder / name / "artifacts").mkdir(parents=True)
    done = home.collect()
    assert [(each.kind, each.name) for each in done.removed] == [("mlflow", "0" * 32)]
    assert [path.name for path in folder.iterdir()] == [run]
