"""The seam between stages and kinds of models: a second kind goes wherever LightGBM's models go."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from include.artefacts.store import ArtefactStore
from include.config.settings import ROOT, Settings
from include.errors import ArtefactError, ConfigError
from include.models import kinds, trial
from include.models.bundle import digest_of
from include.models.encoding import Schema
from include.models.kinds import DEFAULT, Fitted, kind_in, kind_of
from include.models.loading import load_model
from include.models.matrix import columns_of
from include.models.pins import COMMON, fits_here, serving_pins
from include.models.predictor import Predictor
from include.models.signing import sign_here, verify_by_folder
from include.packaging import shipped as shipped_code
from include.records.records import Model
from include.serving import trials
from include.serving.model_states import ModelStates
from include.serving.workers import Workers
from include.training import train_model
from tests.builders import rate_kind
from tests.builders.bundles import write_bundle
from tests.builders.judging import new_bench
from tests.builders.serving import NOW
from tests.builders.small_model import USE_CASE

ROW = {"income": 0.3, "visits": 2, "region": "r1", "member": True}


@pytest.fixture
def rated(monkeypatch: pytest.MonkeyPatch) -> Fitted:
    """A model of the second kind, which is known for the length of a test."""
    monkeypatch.setitem(kinds.KINDS, rate_kind.NAME, rate_kind.MODULE)
    return Fitted(rate_kind.bundle_files(), rounds=0, params={}, metrics={})


@pytest.fixture
def folder(rated: Fitted, tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "rated", rated.files)


def test_a_bundle_that_names_no_kind_is_lightgbms(fitted: Fitted) -> None:
    assert "kind" not in json.loads(fitted.files["schema.json"])
    assert kind_in(fitted.files["schema.json"]) is kind_of(DEFAULT)
    assert isinstance(fitted.predictor, Predictor)


@pytest.mark.parametrize("damaged", [b"", b"[1]", b"\xff", b"{"])
def test_a_schema_that_is_none_is_left_to_the_digest_to_refuse(damaged: bytes) -> None:
    assert kind_in(damaged) is kind_of(DEFAULT)


@pytest.mark.parametrize("name", ["rate", "os", "../lightgbm", "None"])
def test_a_kind_that_is_not_known_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(ArtefactError, match=r"knows lightgbm\); train the model again, or use"):
        kind_of(name)
    with pytest.raises(ArtefactError, match="is no kind of model"):
        kind_in(json.dumps({"kind": name}).encode())


def test_a_schema_keeps_its_kind(rated: Fitted, fitted: Fitted) -> None:
    for files, kind in ((rated.files, "rate"), (fitted.files, "lightgbm")):
        schema = Schema.from_json(files["schema.json"])
        assert schema.kind == kind
        assert schema.to_json().encode() == files["schema.json"]


def test_a_second_kind_is_loaded_by_its_bundle_and_answers(
    rated: Fitted, folder: Path, frame: pa.Table
) -> None:
    model = load_model(folder, digest_of(rated.files))
    assert isinstance(model, rate_kind.RateModel)
    assert model.check_golden() == 15
    scores = model.many(columns_of(frame, model.schema))
    assert model.one(frame.select(model.features).to_pylist()[0]) == pytest.approx(scores[0])
    (folder / "model.txt").write_text("tree")
    with pytest.raises(ArtefactError, match=r"only rate\.json, schema\.json, golden\.json do"):
        load_model(folder, digest_of(rated.files))


def test_a_second_kind_is_refused_where_its_golden_rows_differ(
    rated: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = {**rated.files, "rate.json": b'{"log_odds": 0.5}'}
    folder = write_bundle(tmp_path / "damaged", damaged)
    pins = serving_pins(kind_of(rate_kind.NAME))
    assert trial.main([str(folder), digest_of(damaged), pins]) == ArtefactError.exit_code
    assert "golden row 0" in capsys.readouterr().err
    rated.files["rate.json"] = b"{}"
    with pytest.raises(ArtefactError, match=r"rate\.json is no rate"):
        rated.predictor.check_golden()


def test_a_kind_pins_and_ships_its_own_code_and_libraries(rated: Fitted) -> None:
    ours, theirs = kind_of(DEFAULT), kind_of(rate_kind.NAME)
    assert serving_pins(ours) != serving_pins(theirs)
    assert fits_here(serving_pins(theirs))
    assert [name.split("==")[0] for name in shipped_code.requirements(theirs)] == ["numpy"]
    shipped = shipped_code.shipped_files(theirs)
    assert set(shipped.values()) >= {*COMMON, *theirs.modules, "include/models/kinds.py"}
    assert "include/models/predictor.py" not in shipped
    assert shipped_code.serving_digest(ours) != shipped_code.serving_digest(theirs)


def test_parameters_are_asked_of_the_kind(rated: Fitted) -> None:
    assert [name for name, _ in kind_of(rate_kind.NAME).parameter_problems({"eta": 1}, 3)] == [
        "eta"
    ]
    ((name, reason),) = kind_of(DEFAULT).parameter_problems({"learning_rte": 1}, 3)
    assert (name, "did you mean learning_rate" in reason) == ("learning_rte", True)


@pytest.mark.slow
def test_a_second_kind_is_trained_registered_and_judged(
    rated: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_model, "KIND", kind_of(rate_kind.NAME))
    bench = new_bench(tmp_path / "home")
    bench.write()
    key = "2026-02-05"
    outputs = bench.judged(key)
    model = bench.model(key)
    loaded = load_model(model.bundle, model.model_digest)
    assert isinstance(loaded, rate_kind.RateModel)
    assert model.pins == serving_pins(kind_of(rate_kind.NAME))
    assert outputs["metrics"]["auc"] > 0.7
    assert outputs["verdict"] in ("pass", "fail")


def test_the_node_loads_a_second_kind_into_itself(
    rated: Fitted, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial runs here: a child does not know a kind that only this process has been told of."""

    async def tried(bundle: str, digest: str, pins: str, *, seconds: float) -> None:
        assert trial.main([bundle, digest, pins]) == 0

    monkeypatch.setattr(trials, "try_model", tried)
    model = Model(
        use_case="visits",
        version=1,
        model_digest=digest_of(rated.files),
        partition="2026-01-01",
        as_of=NOW,
        mode="live",
        feature_set="abc",
        bundle=str(folder),
        pins=serving_pins(kind_of(rate_kind.NAME)),
    )
    settings = Settings(home=tmp_path)
    model = sign_here(settings, model, at=NOW, signed_as="packaging")

    async def load() -> float:
        ready = asyncio.Event()
        store = ArtefactStore.of(settings)
        verify = partial(verify_by_folder, settings.signing_keys_folder)
        states = ModelStates(store, Workers(), verify, changed=lambda: None, loaded=ready.set)
        states.want({"champion": model})
        async with asyncio.timeout(60):
            await ready.wait()
        candidate = states.get(model)
        assert candidate is not None
        loaded = candidate.alive
        assert loaded is not None
        assert loaded.scorer is not None
        return loaded.scorer.one(ROW)

    assert asyncio.run(load()) == rated.predictor.one(ROW)


def test_asking_for_a_kind_imports_nothing_heavy() -> None:
    code = (
        "import sys; from include.models.kinds import every_kind; every_kind()\n"
        "heavy = {'pandas', 'sklearn', 'lightgbm', 'mlflow', 'feast', 'pyarrow', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), 'include.training' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] False"


def test_lightgbm_refuses_parameters_in_our_words(frame: pa.Table) -> None:
    training = USE_CASE.training.model_copy(update={"params": {"num_leaves": 1}})
    case = USE_CASE.model_copy(update={"training": training})
    parts = np.arange(len(frame)).astype(np.int8) % 3
    with pytest.raises(ConfigError, match="num_leaves must be > 1"):
        kind_of(DEFAULT).fit(frame, parts.astype(np.int8), case, "f")
