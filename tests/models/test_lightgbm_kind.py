"""LightGBM's kind: what it hands to MLflow is the model that it serves."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from include.config.settings import ROOT
from include.models.bundle import digest_of
from include.models.encoding import encode
from include.models.kinds import DEFAULT, Fitted, kind_of
from include.models.lightgbm_kind import LightGBM
from include.models.matrix import columns_of
from include.models.predictor import Predictor

KIND = kind_of(DEFAULT)


def test_the_model_in_mlflows_form_gives_the_raw_scores_of_the_one_that_is_served(
    bundle: Path, fitted: Fitted, frame: pa.Table, tmp_path: Path
) -> None:
    import mlflow.lightgbm

    KIND.save_for_mlflow(bundle, tmp_path / "model", digest=digest_of(fitted.files))
    model = fitted.predictor
    rows = encode(columns_of(frame, model.schema), model.schema)
    raw = mlflow.lightgbm.load_model(str(tmp_path / "model")).predict(rows, raw_score=True)
    probabilities = 1 / (1 + np.exp(-(model.schema.slope * raw + model.schema.offset)))
    assert np.abs(probabilities - model.many(columns_of(frame, model.schema))).max() <= 1e-9
    saved = mlflow.models.Model.load(str(tmp_path / "model"))
    assert saved.signature.inputs.input_names() == model.features
    assert saved.metadata["model_digest"] == digest_of(fitted.files)
    pinned = (tmp_path / "model" / "requirements.txt").read_text()
    assert f"lightgbm=={version('lightgbm')}" in pinned


def test_what_it_pins_is_the_code_that_answers() -> None:
    files = {Path(inspect.getfile(of)) for of in (LightGBM, Predictor)}
    assert {ROOT / path for path in KIND.modules} == files
    assert KIND.name == DEFAULT
