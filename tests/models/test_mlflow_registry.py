"""MLflow: what is logged, what a repeated call finds again, aliases as a mirror."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import Settings
from include.errors import ConfigError
from include.models import kinds, mlflow_registry
from include.models.bundle import digest_of
from include.models.mlflow_client import connected
from include.models.mlflow_registry import TrainingRun
from include.records.records import Model, Route
from tests.builders import rate_kind
from tests.builders.bundles import write_bundle
from tests.builders.mlflow_database import copy_database
from tests.builders.serving import NAME, NOW, bundle_files
from tests.builders.small_model import USE_CASE

KEY = "2026-03-01"


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    copy_database(tmp_path)
    return Settings(home=tmp_path)


def training(home: Settings, seed: int = 1, key: str = KEY, mode: str = "live") -> TrainingRun:
    files = bundle_files(seed)
    folder = home.home / f"bundle-{seed}"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return TrainingRun(
        NAME,
        key,
        NOW.isoformat(),
        mode,
        digest_of(files),
        folder,
        {"rounds": 10},
        {"auc": 0.7},
        {"a": 1},
    )


def test_a_run_holds_parameters_metrics_manifest_bundle_and_signature(home: Settings) -> None:
    import mlflow

    made = mlflow_registry.register(home, training(home))
    client = mlflow.MlflowClient(home.mlflow_address, home.mlflow_address)
    run = client.get_run(made.run_id)
    assert (made.version, made.reused, run.info.status) == (1, False, "FINISHED")
    assert run.data.params["rounds"] == "10"
    assert run.data.metrics["auc"] == 0.7
    assert run.data.tags["evergreen.partition"] == KEY
    assert {item.path for item in client.list_artifacts(made.run_id)} == {
        "bundle",
        "manifest.json",
        "model",
    }
    version = client.get_model_version(NAME, "1")
    assert (version.tags["evergreen.mode"], version.tags["evergreen.as_of"]) == (
        "live",
        NOW.isoformat(),
    )
    signature = mlflow.models.Model.load(version.source.removeprefix("file://")).signature
    assert signature.inputs.input_names() == ["income", "jobs", "region", "new"]


def test_a_model_of_its_partition_is_found_again_and_another_partition_gets_its_own_version(
    home: Settings,
) -> None:
    first = mlflow_registry.register(home, training(home, mode="backfill"))
    again = mlflow_registry.register(home, training(home, mode="live"))
    assert (again.version, again.run_id, again.reused) == (first.version, first.run_id, True)
    assert mlflow_registry.register(home, training(home, key="2026-03-02")).version == 2
    assert mlflow_registry.register(home, training(home, seed=2)).version == 3


def test_a_model_of_a_second_kind_is_registered_in_its_own_form(
    home: Settings, frame: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setitem(kinds.KINDS, rate_kind.NAME, rate_kind.MODULE)
    parts = np.zeros(len(frame), dtype=np.int8)
    fitted = kinds.kind_of(rate_kind.NAME).fit(frame, parts, USE_CASE, "abc")
    run = replace(training(home), folder=write_bundle(home.home / "rated", fitted.files))
    version = mlflow_registry.register(home, run)
    client = mlflow.MlflowClient(home.mlflow_address, home.mlflow_address)
    assert [item.path for item in client.list_artifacts(version.run_id, "model")] == [
        "model/rate.json"
    ]


def test_a_superseded_training_makes_no_version_and_its_run_is_failed(home: Settings) -> None:
    def superseded() -> None:
        raise ConfigError("stand-in for a lost lease")

    with pytest.raises(ConfigError):
        mlflow_registry.register(home, training(home), check=superseded)
    with sqlite3.connect(home.home / "mlflow.db") as con:
        assert con.execute("SELECT count(*) FROM model_versions").fetchone() == (0,)
        assert con.execute("SELECT status FROM runs").fetchall() == [("FAILED",)]


def test_runs_that_a_dead_process_left_open_are_closed(home: Settings) -> None:
    import mlflow

    mlflow_registry.register(home, training(home))
    client = mlflow.MlflowClient(home.mlflow_address, home.mlflow_address)
    experiment = client.get_experiment_by_name(NAME).experiment_id
    mine = client.create_run(experiment, tags={"evergreen.partition": KEY}).info.run_id
    other = client.create_run(experiment, tags={"evergreen.partition": "2026-03-02"}).info.run_id
    assert mlflow_registry.close_stale_runs(home, NAME, KEY) == 1
    assert client.get_run(mine).info.status == "FAILED"
    assert client.get_run(other).info.status == "RUNNING"


def test_aliases_follow_the_routing_row_and_nothing_else(home: Settings) -> None:
    for seed in (1, 2, 3):
        mlflow_registry.register(home, training(home, seed=seed))
    route = Route(NAME, champion=2, previous=1)
    changed = mlflow_registry.mirror_aliases(home, NAME, route, challenger=3)
    assert (
        changed
        == {"champion": 2, "previous": 1, "challenger": 3}
        == mlflow_registry.aliases(home, NAME)
    )
    assert mlflow_registry.mirror_aliases(home, NAME, route, challenger=3) == {}
    assert mlflow_registry.mirror_aliases(home, NAME, Route(NAME, champion=1)) == {
        "champion": 1,
        "previous": None,
        "challenger": None,
    }
    assert mlflow_registry.aliases(home, NAME) == {"champion": 1}


def test_a_mirror_without_any_model_is_nothing(home: Settings) -> None:
    assert mlflow_registry.mirror_aliases(home, "nobody", Route("nobody")) == {}
    assert mlflow_registry.aliases(home, "nobody") == {}


def test_the_waiting_challenger_is_of_the_newest_partition_that_may_still_be_released() -> None:
    def model(version: int, partition: str, state: str = "challenger") -> Model:
        return Model(
            NAME, version, f"sha256:{version}", partition, NOW, "live", "f", "b", state=state
        )  # type: ignore[arg-type]

    models = [
        model(1, "2026-03-01"),
        model(2, "2026-03-03"),
        model(3, "2026-03-02"),
        model(4, "2026-03-04", "candidate"),
    ]
    assert mlflow_registry.waiting_challenger(models, Route(NAME)) == 2
    assert (
        mlflow_registry.waiting_challenger(models, Route(NAME, champion=2, watermark="2026-03-03"))
        is None
    )
    assert mlflow_registry.waiting_challenger([], Route(NAME)) is None


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "a\\b", "a%2e%2e", "a\0b", "", "A", "x" * 60, "a\n", "<script>"]
)
def test_names_that_are_no_plain_names_are_refused(home: Settings, name: str) -> None:
    with pytest.raises(ConfigError, match="no model name"):
        mlflow_registry.aliases(home, name)


@pytest.mark.parametrize("key", ["2026-03-01' or 1=1", "../..", "2026-3-1", "2026-03-01\n"])
def test_keys_that_are_no_keys_are_refused(home: Settings, key: str) -> None:
    with pytest.raises(ConfigError, match="no partition key"):
        mlflow_registry.close_stale_runs(home, NAME, key)


def test_what_is_forgotten_begins_anew_and_others_stay(home: Settings) -> None:
    """Also where a person deleted the experiment in MLflow's pages, and once more."""
    assert mlflow_registry.register(home, training(home)).version == 1
    other = replace(training(home), use_case="other")
    mlflow_registry.register(home, other)
    with connected(home) as client:
        client.delete_experiment(client.get_experiment_by_name(NAME).experiment_id)
    for moment in (NOW, NOW):
        mlflow_registry.forget(home, NAME, at=moment)
        assert set(mlflow_registry.count_entries(home, NAME).values()) == {0}
    assert set(mlflow_registry.count_entries(home, "other").values()) == {1}
    again = mlflow_registry.register(home, training(home))
    assert (again.version, again.reused) == (1, False)
    assert set(mlflow_registry.count_entries(home, NAME).values()) == {1}


def test_where_mlflow_never_was_nothing_is_made_to_be_forgotten(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert mlflow_registry.count_entries(settings, NAME) == {}
    mlflow_registry.forget(settings, NAME, at=NOW)
    assert list(tmp_path.iterdir()) == []
