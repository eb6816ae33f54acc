"""An installation whose model has 30 features, 100 trees and 31 leaves, released to a real node."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from include.features import online_rows
from include.features.online_stores import open_store
from include.models import encoding
from include.models.calibration import calibrated
from include.packaging import package_model
from include.records.records import Model
from tests.builders.serving import AT_ONCE, FEATURE_SET, FIRST, NAME, NOW, Desk

NAMES = [f"feature_{number:02}" for number in range(30)]
ENTITIES = 1000
_YAML = """name: {name}
title: Thirty numbers
history: {{first: 2026-01-01, last: {last}}}
entity: {{name: account, key: account_id}}
sources:
  events:
    path: events/*.csv
    key: [account_id, event_timestamp]
    columns: {{account_id: {{type: int64}}, {typed}, label: {{type: int64}},
        label_timestamp: {{type: timestamp}}}}
label: {{source: events, column: label, delay: 30d}}
features:
  facts: {{grain: event, source: events, columns: {{{columns}}}}}
fallback: {{unknown: {unknown}, stale: {stale}, store: {store}}}
decision: {{threshold: 0.5}}
release: {release}
"""


def rows(count: int, seed: int = 0) -> list[list[float]]:
    """Return rows of 30 numbers."""
    drawn = np.random.default_rng(seed).normal(size=(count, len(NAMES)))
    found: list[list[float]] = drawn.round(6).tolist()
    return found


def named(row: list[float]) -> dict[str, float]:
    """Return a row by the names of its features."""
    return dict(zip(NAMES, row, strict=True))


def json_of(**body: Any) -> bytes:
    """Return the body of a request."""
    return json.dumps(body).encode()


@lru_cache(maxsize=4)
def bundle_files(seed: int) -> dict[str, bytes]:
    """Return the files of a model; another seed is another model."""
    import lightgbm

    random = np.random.default_rng(seed)
    matrix = random.normal(size=(20_000, len(NAMES)))
    labels = (matrix @ random.normal(size=len(NAMES)) + random.normal(size=20_000) > 0).astype(int)
    parameters = {"objective": "binary", "num_leaves": 31, "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, labels), num_boost_round=100)
    features = tuple(encoding.Feature(name, "float64") for name in NAMES)
    schema = encoding.Schema(NAME, FEATURE_SET, features, 1.0, 0.0, 0.5, "")
    asked: list[dict[str, Any]] = [named(row) for row in rows(8, seed)]
    asked.append(dict.fromkeys(NAMES))
    raw = booster.predict(encoding.encode(asked, schema), raw_score=True)
    scores = calibrated(np.asarray(raw), 1.0, 0.0).tolist()
    golden = json.dumps({"rows": asked, "scores": scores}).encode()
    schema = replace(schema, golden="sha256:" + hashlib.sha256(golden).hexdigest())
    return {
        "model.txt": booster.model_to_string().encode(),
        "schema.json": schema.to_json().encode(),
        "golden.json": golden,
    }


class WideDesk(Desk):
    """An installation with thirty features of numbers, its entities online."""

    def write_use_case(
        self,
        *,
        unknown: str = "refuse",
        stale: str = "refuse",
        store: str = "refuse",
        last: str = "2026-03-31",
        release: str = AT_ONCE,
    ) -> None:
        text = _YAML.format(
            release=release,
            name=NAME,
            last=last,
            unknown=unknown,
            stale=stale,
            store=store,
            typed=", ".join(f"{name}: {{type: float64}}" for name in NAMES),
            columns=", ".join(f"{name}: float64" for name in NAMES),
        )
        (self.usecases / f"{NAME}.yaml").write_text(text)

    def bundle(self, seed: int) -> dict[str, bytes]:
        return bundle_files(seed)

    def publish_rows(self) -> None:
        """Put the features of all entities online, in one view as it is written today."""
        at = round(NOW.timestamp() * 1e6)
        view = online_rows.OnlineView("facts", 35 * 86_400_000_000, tuple(NAMES))
        described = online_rows.OnlineSet(
            FEATURE_SET,
            tuple(NAMES),
            "2026-03-09",
            NOW - NOW.min.replace(tzinfo=NOW.tzinfo),
            NOW,
            inputs="",
            digest="",
            views=(view,),
        )
        packed = [
            online_rows.pack(entity, at, [*row, at])
            for entity, row in enumerate(rows(ENTITIES, seed=1))
        ]
        open_store(self.settings, NAME).publish(described, packed)

    def package_for_real(self, model: Model) -> str:
        """Build the model's Bento, record it and return its tag."""
        with self.context("package_model") as context:
            outcome = package_model.compute(context)
            package_model.effects(context, outcome)
        self.record("package_model", FIRST, outcome.outputs, digest=outcome.digest)
        return str(outcome.outputs["bento_tag"])

    @property
    def bento_home(self) -> Path:
        """The home of the Bentos."""
        return self.settings.home / "bento"
