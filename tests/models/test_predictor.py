"""The predictor: one encoding for training and serving, bundles that are verified before they
are loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import ROOT
from include.config.use_case_file import parse
from include.errors import ArtefactError
from include.models import bundle as models_bundle
from include.models import encoding, predictor
from include.models import matrix as models_matrix
from include.models.encoding import InvalidFeature
from include.models.predictor import Predictor
from include.training import fitting, splits
from include.training.fitting import Fitted
from tests.builders.judging import KNOBS, YAML, simulate

USE_CASE = parse(YAML.format(**{**KNOBS, "more": ", member: bool"}))


@pytest.fixture(scope="module")
def frame() -> pa.Table:
    columns = simulate(20, 1)
    generator = np.random.default_rng(2)
    member = [
        None if value < 0.1 else value < 0.5 for value in generator.random(len(columns["label"]))
    ]
    region = [None if index % 17 == 0 else value for index, value in enumerate(columns["region"])]
    return pa.table(
        {
            "customer_id": pa.array(columns["customer_id"], pa.int64()),
            "event_timestamp": pa.array(columns["event_timestamp"], pa.timestamp("us", tz="UTC")),
            "label": columns["label"],
            "income": pa.array(columns["income"], pa.float64()),
            "visits": pa.array(
                columns["visits"], pa.int64(), mask=generator.random(len(region)) < 0.1
            ),
            "region": pa.array(region, pa.string()),
            "member": pa.array(member, pa.bool_()),
        }
    )


@pytest.fixture(scope="module")
def fitted(frame: pa.Table) -> Fitted:
    moments = np.asarray(frame["event_timestamp"].cast(pa.int64()))
    how = splits.boundaries(moments, USE_CASE.training.split)
    parts = splits.assign(
        frame["customer_id"].to_pylist(), moments, USE_CASE.training.split, 7, how
    )
    return fitting.fit(frame, parts, USE_CASE, "abc")


@pytest.fixture
def bundle(fitted: Fitted, tmp_path: Path) -> Path:
    return write(tmp_path / "bundle", fitted.files)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


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


def test_rows_and_columns_are_encoded_alike(fitted: Fitted, frame: pa.Table) -> None:
    schema = fitted.predictor.schema
    by_rows = encoding.encode(frame.select(schema.names).to_pylist(), schema)
    by_columns = encoding.encode(models_matrix.columns_of(frame, schema), schema)
    np.testing.assert_array_equal(by_rows, by_columns)


def test_golden_rows_hold_nulls_and_an_unseen_category(fitted: Fitted) -> None:
    golden = json.loads(fitted.files["golden.json"])
    codes = fitted.predictor.schema.features[2].codes or {}
    assert any(all(value is None for value in row.values()) for row in golden["rows"])
    assert any(row["region"] not in (None, *codes) for row in golden["rows"])
    assert fitted.predictor.check_golden() == len(golden["rows"]) >= 10


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


def test_an_intact_bundle_loads_and_passes_its_trial(bundle: Path) -> None:
    digest = models_bundle.bundle_digest(bundle)
    predictor.trial_load(bundle, digest)
    assert Predictor.load(bundle, digest).digest == digest


@pytest.mark.parametrize("name", models_bundle.FILES)
def test_one_changed_byte_is_refused_before_loading(bundle: Path, name: str) -> None:
    digest = models_bundle.bundle_digest(bundle)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    for load in (Predictor.load, models_bundle.verify_bundle, predictor.trial_load):
        with pytest.raises(ArtefactError, match="recorded is"):
            load(bundle, digest)


def test_files_added_removed_or_renamed_are_refused(bundle: Path) -> None:
    digest = models_bundle.bundle_digest(bundle)
    (bundle / "notes.txt").write_text("x")
    with pytest.raises(ArtefactError, match=r"notes\.txt does not belong"):
        Predictor.load(bundle, digest)
    (bundle / "notes.txt").unlink()
    (bundle / "golden.json").rename(bundle / "Golden.json")
    with pytest.raises(ArtefactError, match="does not belong"):
        Predictor.load(bundle, digest)
    (bundle / "Golden.json").unlink()
    with pytest.raises(ArtefactError, match=r"golden\.json is missing"):
        Predictor.load(bundle, digest)


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.joblib", "model.dill", "weights.pickle", "MODEL.PKL"]
)
def test_pickled_models_are_refused_by_type_and_never_opened(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "opened",))

    digest = models_bundle.bundle_digest(bundle)
    (bundle / name).write_bytes(pickle.dumps(Trap()))
    (bundle / name).chmod(0)
    with pytest.raises(ArtefactError, match="can run code"):
        predictor.trial_load(bundle, digest)
    assert not (tmp_path / "opened").exists()


def test_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    digest = models_bundle.bundle_digest(bundle)
    (bundle / "model.txt").rename(tmp_path / "model.txt")
    (bundle / "model.txt").symlink_to(tmp_path / "model.txt")
    with pytest.raises(ArtefactError, match="link"):
        Predictor.load(bundle, digest)
    (tmp_path / "other").symlink_to(bundle)
    with pytest.raises(ArtefactError, match="no folder"):
        Predictor.load(tmp_path / "other", digest)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_cut_model_kills_at_most_the_trial(fitted: Fitted, tmp_path: Path, keep: float) -> None:
    """The digest is that of the cut file, so only the trial can find it; LightGBM dies of some
    of them.
    """
    text = fitted.files["model.txt"]
    folder = write(tmp_path / "cut", {**fitted.files, "model.txt": text[: int(len(text) * keep)]})
    with pytest.raises(ArtefactError, match="trial"):
        predictor.trial_load(folder, models_bundle.bundle_digest(folder))


def test_a_changed_leaf_with_a_fresh_digest_is_found_by_its_golden_rows(
    fitted: Fitted, tmp_path: Path
) -> None:
    lines = fitted.files["model.txt"].decode().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("leaf_value="))
    other_digits = str.maketrans("123456789", "234567891")
    lines[first] = lines[first].translate(other_digits)
    folder = write(tmp_path / "leaf", {**fitted.files, "model.txt": "".join(lines).encode()})
    with pytest.raises(ArtefactError, match="golden row 0"):
        predictor.trial_load(folder, models_bundle.bundle_digest(folder))


def test_golden_rows_of_another_model_or_none_at_all_are_refused(
    fitted: Fitted, tmp_path: Path
) -> None:
    empty = json.dumps({"rows": [], "scores": []}).encode()
    with pytest.raises(ArtefactError, match=r"golden\.json is not the one"):
        Predictor({**fitted.files, "golden.json": empty})
    schema = json.loads(fitted.files["schema.json"])
    schema["golden"] = "sha256:" + hashlib.sha256(empty).hexdigest()
    model = Predictor(
        {**fitted.files, "golden.json": empty, "schema.json": json.dumps(schema).encode()}
    )
    with pytest.raises(ArtefactError, match="no rows to ask"):
        model.check_golden()


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"format": 2}', b"null"])
def test_a_damaged_schema_is_an_artefact_error(fitted: Fitted, damage: bytes) -> None:
    with pytest.raises(ArtefactError, match="schema"):
        Predictor({**fitted.files, "schema.json": damage})


def test_a_schema_of_other_width_is_refused(fitted: Fitted) -> None:
    schema = json.loads(fitted.files["schema.json"])
    schema["features"].pop()
    with pytest.raises(ArtefactError, match="names 3"):
        Predictor({**fitted.files, "schema.json": json.dumps(schema).encode()})


def test_a_trial_that_hangs_is_ended(bundle: Path) -> None:
    with pytest.raises(ArtefactError, match="did not answer"):
        predictor.trial_load(bundle, models_bundle.bundle_digest(bundle), timeout=0.001)


def test_serving_imports_no_pandas_scikit_learn_or_lightgbm_package(bundle: Path) -> None:
    code = (
        "import sys; from include.models.predictor import Predictor\nmodel = "
        f"Predictor.load({str(bundle)!r}, {models_bundle.bundle_digest(bundle)!r}); "
        "model.check_golden()\nprint([name for name in ('pandas', 'sklearn', 'lightgbm', "
        "'mlflow', 'feast', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_pins_are_equal_in_another_process_and_follow_each_pin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "from include.models.predictor import serving_pins; print(serving_pins())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == predictor.serving_pins()
    monkeypatch.setattr(predictor.importlib.metadata, "version", lambda name: "0.0.1")
    predictor.serving_pins.cache_clear()
    assert predictor.serving_pins() != done.stdout.strip()
    predictor.serving_pins.cache_clear()
