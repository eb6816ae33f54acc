"""A second kind of model, as small as one can be: the log-odds of the outcome, moved by one number.

It proves that stages, packaging and the node ask any kind, and nothing of LightGBM.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.use_case import UseCase
from include.errors import ArtefactError
from include.models import golden, matrix
from include.models.bundle import digest_of
from include.models.calibration import calibrated, sigmoid
from include.models.encoding import Columns, Schema, encode
from include.models.kinds import Fitted, ModelKind
from tests.builders.small_model import USE_CASE, new_frame

NAME = "rate"
MODULE = "tests.builders.rate_kind"


class RateModel:
    """The log-odds of the outcome plus the value of the schema's first feature."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.digest = digest_of(files)
        self.schema = Schema.from_json(files["schema.json"])
        self._golden = golden.verified_rows(self.schema, files)
        try:
            self._log_odds = float(json.loads(files["rate.json"])["log_odds"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"rate.json is no rate ({error}); train the model again") from error

    @property
    def features(self) -> list[str]:
        return self.schema.names

    @property
    def threshold(self) -> float:
        return self.schema.threshold

    def one(self, row: Mapping[str, object]) -> float:
        return sigmoid(float(self._raw(encode([row], self.schema))[0]))

    def many(self, rows: Sequence[Mapping[str, object]] | Columns) -> NDArray[np.float64]:
        return calibrated(self._raw(encode(rows, self.schema)), 1.0, 0.0)

    def check_golden(self) -> int:
        return golden.check_answers(self, self._golden)

    def _raw(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.nan_to_num(rows[:, 0]) + self._log_odds)


class Rate:
    """Models that know how frequent the outcome is."""

    name = NAME
    libraries: tuple[str, ...] = ("numpy",)
    payload: tuple[str, ...] = ("rate.json",)
    requirements: tuple[str, ...] = ("numpy",)
    modules: tuple[str, ...] = ("tests/builders/rate_kind.py",)

    def fit(
        self, frame: pa.Table, parts: NDArray[np.int8], use_case: UseCase, feature_set: str
    ) -> Fitted:
        seen = frame.filter(pa.array(parts != 2))
        rate = float(matrix.labels_of(seen).mean())
        schema = replace(matrix.learn_schema(seen, use_case, feature_set), kind=NAME)
        payload = json.dumps({"log_odds": float(np.log(rate / (1 - rate)))}).encode()
        rows = matrix.choose_golden_rows(seen, schema)
        asked = RateModel(_files(schema, payload, golden.rows_to_json([], [])))
        return Fitted(
            _files(schema, payload, golden.rows_to_json(rows, asked.many(rows).tolist())),
            rounds=0,
            params={},
            metrics={"rate": rate, "yardstick_auc": 0.5},
        )

    def load(self, files: Mapping[str, bytes]) -> RateModel:
        return RateModel(files)

    def parameter_problems(
        self, params: Mapping[str, Any], features: int
    ) -> Iterator[tuple[str, str]]:
        yield from ((name, "a rate has no parameters; remove it") for name in params)

    def save_for_mlflow(self, bundle: Path, target: Path, *, digest: str) -> None:
        target.mkdir()
        (target / "rate.json").write_bytes((bundle / "rate.json").read_bytes())


def _files(schema: Schema, payload: bytes, golden_rows: bytes) -> dict[str, bytes]:
    named = replace(schema, golden=golden.digest(golden_rows))
    return {
        "rate.json": payload,
        "schema.json": named.to_json().encode(),
        "golden.json": golden_rows,
    }


KIND: ModelKind = Rate()


def bundle_files() -> dict[str, bytes]:
    """Return the files of a model of this kind."""
    frame = new_frame()
    parts = np.where(np.arange(len(frame)) % 5 == 0, 2, 0).astype(np.int8)
    return KIND.fit(frame, parts, USE_CASE, "abc").files
