"""The predictor: LightGBM's own scores, by row and in bulk, from any thread, without pandas."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import ROOT
from include.errors import ArtefactError
from include.models import bundle as models_bundle
from include.models import encoding
from include.models import matrix as models_matrix
from include.models.encoding import InvalidFeature
from include.models.kinds import Fitted
from include.models.predictor import Predictor


def test_scores_equal_the_booster_to_1e_9_row_by_row_and_in_bulk(
    fitted: Fitted, frame: pa.Table
) -> None:
    import lightgbm

    model = fitted.predictor
    rows = frame.select(model.features).to_pylist()
    matrix = encoding.encode(models_matrix.columns_of(frame, model.schema), model.schema)
    booster = lightgbm.Booster(model_str=fitted.files["model.txt"].decode())
    raw = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1))
    expected = 1 / (1 + np.exp(-(model.schema.slope * raw + model.schema.offset)))
    assert np.abs(model.many(rows) - expected).max() <= 1e-9
    assert np.abs(np.array([model.one(row) for row in rows]) - expected).max() <= 1e-9
    assert len(np.unique(expected)) > 100


def test_unseen_categories_missing_ones_and_odd_numbers(fitted: Fitted) -> None:
    model = fitted.predictor
    row: dict[str, Any] = {"income": 0.3, "visits": 2, "region": "r1", "member": True}
    assert model.one({**row, "region": "nowhere"}) == model.one({**row, "region": "=cmd|calc"})
    for odd in (math.nan, math.inf, -math.inf, 10**400):
        assert model.one({**row, "income": odd}) == model.one({**row, "income": None})
    assert model.one(
        {**row, "income": np.float64(0.3), "visits": np.int64(2), "member": np.bool_(True)}
    ) == model.one(row)
    assert model.one({**row, "unused": "x"}) == model.one(row)
    assert 0 < model.one({**row, "income": 5e-324}) < 1


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"income": "12"}, "income"),
        ({"region": 5}, "region"),
        ({"visits": [1]}, "visits"),
        ({}, "member"),
    ],
)
def test_a_wrong_or_missing_value_is_refused_by_name(
    fitted: Fitted, change: dict[str, Any], feature: str
) -> None:
    row: dict[str, Any] = (
        {"income": 0.3, "visits": 2, "region": "r1"} | ({"member": True} if change else {}) | change
    )
    for ask in (fitted.predictor.one, lambda bad: fitted.predictor.many([bad])):
        with pytest.raises(InvalidFeature, match=feature) as refused:
            ask(row)
        assert refused.value.feature == feature


def test_threads_that_share_a_predictor_get_right_answers(fitted: Fitted, frame: pa.Table) -> None:
    model = fitted.predictor
    rows = frame.select(model.features).to_pylist()[:300]
    expected = [model.one(row) for row in rows]
    wrong: list[int] = []

    def ask(offset: int) -> None:
        for number in range(4000):
            index = (number * 7 + offset) % len(rows)
            if model.one(rows[index]) != expected[index]:
                wrong.append(index)

    before = sys.getswitchinterval()
    sys.setswitchinterval(50e-6)
    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert wrong == []


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"format": 2}', b"null"])
def test_a_damaged_schema_is_an_artefact_error(fitted: Fitted, damage: bytes) -> None:
    with pytest.raises(ArtefactError, match="schema"):
        Predictor({**fitted.files, "schema.json": damage})


def test_a_schema_of_other_width_is_refused(fitted: Fitted) -> None:
    schema = json.loads(fitted.files["schema.json"])
    schema["features"].pop()
    with pytest.raises(ArtefactError, match="names 3"):
        Predictor({**fitted.files, "schema.json": json.dumps(schema).encode()})


def test_serving_imports_no_pandas_scikit_learn_or_lightgbm_package(bundle: Path) -> None:
    code = (
        "import sys; from include.models.loading import load_model\nmodel = "
        f"load_model({str(bundle)!r}, {models_bundle.bundle_digest(bundle)!r}); "
        "model.check_golden()\nprint([name for name in ('pandas', 'sklearn', 'lightgbm', "
        "'mlflow', 'feast', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"income": None, "visits": None, "member": None},
        {"region": None},
        {"region": "nowhere"},
        {"income": math.inf},
        {"income": -math.inf, "visits": math.inf},
        {"income": math.nan},
        {"income": 1.7e308, "visits": 1.7e308},
        {"income": 10**400},
        {"visits": 2.0, "member": False},
    ],
    ids=str,
)
def test_values_in_the_model_s_order_are_scored_as_the_row_is(
    fitted: Fitted, change: dict[str, Any]
) -> None:
    model = fitted.predictor
    assert isinstance(model, Predictor)
    row = {"income": 0.3, "visits": 2, "region": "r1", "member": True, **change}
    assert model.of_values(tuple(row[name] for name in model.features)) == model.one(row)


@pytest.mark.parametrize(
    ("change", "feature"),
    [({"income": "12"}, "income"), ({"region": 5}, "region"), ({"member": [1]}, "member")],
)
def test_a_value_of_a_wrong_type_is_refused_by_its_feature(
    fitted: Fitted, change: dict[str, Any], feature: str
) -> None:
    model = fitted.predictor
    assert isinstance(model, Predictor)
    row = {"income": 0.3, "visits": 2, "region": "r1", "member": True, **change}
    with pytest.raises(InvalidFeature) as caught:
        model.of_values([row[name] for name in model.features])
    assert caught.value.feature == feature


def test_too_few_or_too_many_values_never_reach_the_booster(fitted: Fitted) -> None:
    model = fitted.predictor
    assert isinstance(model, Predictor)
    values = [None if name == "region" else 1.0 for name in model.features]
    for wrong in (values[:-1], [*values, 1.0]):
        with pytest.raises((ValueError, IndexError)):
            model.of_values(wrong)
