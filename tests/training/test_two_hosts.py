"""Workers of several hosts, each with a home of its own: one trains, another judges; homes move."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from include.artefacts.store import ArtefactStore
from include.models.mlflow_client import connected
from include.monitoring.compared_rows import _read_sample
from tests.builders.judging import EARLY, LATE, NAME, Bench, new_bench


def host_of(first: Bench, home: Path) -> Bench:
    """Return another host of the same installation: all is shared but the home."""
    shared = {
        "records_url": SecretStr(first.settings.records_address),
        "mlflow_uri": SecretStr(first.settings.mlflow_address),
        "lake_uri": first.settings.lake_root,
        "store_uri": first.settings.store_uri,
    }
    other = Bench(home, **shared)
    other.configure()
    return other


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_what_one_worker_trained_another_one_judges_and_reports(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    uri = f"{tmp_path}/store" if kind == "folder" else request.getfixturevalue("s3_store").uri
    trains = new_bench(tmp_path / "trains", store_uri=uri)
    trains.write(recorded=60)
    judges = host_of(trains, tmp_path / "judges")
    assert trains.run("train_model", EARLY).state == "done"
    report = judges.run("evaluate_model", EARLY)
    assert report.state == "done"
    trains.release(1, EARLY)
    judges.run("train_model", LATE)
    assert trains.run("evaluate_model", LATE).state == "done", "judged against the other's model"
    store = ArtefactStore.of(judges.settings)
    page = store.read(report.outputs["report_uri"])
    assert b"_assets/" in page
    assert report.outputs["report"] == store.where(report.outputs["report_uri"])
    model = judges.model(EARLY)
    sample = store.get(str(model.reference_uri)) / "reference.parquet"
    assert len(pq.read_table(sample)) == model.manifest["reference"]["rows"]
    here = {path.name for path in judges.home.iterdir()}
    assert not here & {"models", "bundles", "references", "reports", "mlartifacts"}
    assert ("cache" in here) is (kind == "s3")
    with connected(judges.settings) as client:
        run = client.get_run(model.run_id)
    assert run.info.artifact_uri.removeprefix("file://").startswith(f"{uri}/mlartifacts/{NAME}/")
    logged = store.entries("mlartifacts", NAME)
    assert sorted(each.name for each in logged)[:2] == sorted(
        trained.run_id for trained in (model, judges.model(LATE))
    )


def test_in_a_home_that_was_moved_training_and_judging_go_on(tmp_path: Path) -> None:
    before = new_bench(tmp_path / "before")
    before.write(recorded=60)
    before.judged(EARLY)
    before.release(1, EARLY)
    before.records.close()
    (tmp_path / "before").rename(tmp_path / "after")
    after = Bench(tmp_path / "after")
    assert after.run("train_model", EARLY).reused
    after.judged(LATE)
    assert not (tmp_path / "before").exists(), "nothing is written to where the home was"
    model = after.model(EARLY)
    context: Any = SimpleNamespace(store=ArtefactStore.of(after.settings))
    assert len(_read_sample(context, model)) == model.manifest["reference"]["rows"]
    with connected(after.settings) as client:
        for key in (EARLY, LATE):
            place = client.get_run(after.model(key).run_id).info.artifact_uri
            assert Path(place.removeprefix("file://")).is_relative_to(tmp_path / "after")
            assert (Path(place.removeprefix("file://")) / "bundle" / "schema.json").is_file()
