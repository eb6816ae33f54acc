"""Models that are alike, or shifted, and Bentos that answer their golden rows and sicken by order.

A Bento of these holds the worker and the code that a package holds; what it starts as `lane.py`
asks a file, before each answer, whether the model is to be sick.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from include.config.settings import ROOT
from include.files import written_aside
from include.models import encoding
from include.models.bento_sources import sources_folder
from include.models.calibration import calibrated
from include.models.kinds import DEFAULT, kind_of
from include.packaging.shipped import shipped_files
from tests.builders.serving import FEATURE_SET, NAME, ROW

Illness = Literal["slow", "errors", "nan", "shifted", "dies"]
WORKER = "healthy_worker.py"  # the worker's name in a Bento of these
LANE = '''
"""The worker of a Bento, whose model is as sick as a file says; golden rows are never."""

import json, os, random, sys, time

import healthy_worker

ORDERS = {orders!r}
chance, truly = random.Random(7), healthy_worker.answer
golden = json.load(open(sys.argv[2] + "/golden.json"))["rows"]


def answer(model, question):
    try:
        order = json.loads(open(ORDERS).read())
    except OSError:
        order = {{}}
    what = order.get("illness")
    if not what or question["row"] in golden or chance.random() >= order["share"]:
        return truly(model, question)
    if what == "dies":
        os._exit(1)
    if what == "errors":
        return {{"id": question["id"], "error": "RuntimeError: sick by order"}}
    if what == "slow":
        began = time.perf_counter()
        time.sleep(order["seconds"])
        reply = truly(model, question)
        return reply | {{"micros": int((time.perf_counter() - began) * 1e6)}}
    reply = truly(model, question)
    return reply | {{"score": float("nan") if what == "nan" else reply["score"] ** 0.3}}


healthy_worker.answer = answer
if __name__ == "__main__":
    raise SystemExit(healthy_worker.main(sys.argv[1:]))
'''


def rows_of(number: int) -> list[dict[str, Any]]:
    """Return the features of so many accounts, the same in each call."""
    import numpy as np

    chance = np.random.default_rng(3)
    return [
        {
            "income": float(round(chance.normal(1500, 600), 2)),
            "jobs": int(chance.integers(0, 6)),
            "region": str(chance.choice(["north", "south", "west"])),
            "new": bool(chance.random() < 0.4),
        }
        for _ in range(number)
    ]


@lru_cache(maxsize=64)
def alike_files(seed: int, shift: float = 0.0) -> dict[str, bytes]:
    """Return the files of a model; another seed is another digest and nearly the same scores.

    `shift` moves every score, by so much of the log-odds.
    """
    import lightgbm
    import numpy as np

    rows = rows_of(2000)
    region = encoding.Feature("region", "string", {"north": 0, "south": 1}, missing=2, unknown=3)
    plain = [encoding.Feature("income", "float64"), encoding.Feature("jobs", "int64")]
    features = (*plain, region, encoding.Feature("new", "bool"))
    schema = encoding.Schema(NAME, FEATURE_SET, features, 1.0, shift, 0.5, "")
    matrix = encoding.encode(rows, schema)
    chance = np.random.default_rng(11)
    log_odds = (matrix[:, 0] - 1500) / 500 + 0.3 * (matrix[:, 1] - 2.5)
    labels = (log_odds + chance.logistic(size=len(rows)) > 0).astype(int)
    parameters = {
        "objective": "binary",
        "num_leaves": 7,
        "num_threads": 1,
        "bagging_fraction": 0.95,
        "bagging_freq": 1,
        "seed": seed,
        "verbosity": -1,
    }
    dataset = lightgbm.Dataset(matrix, labels, categorical_feature=[2])
    booster = lightgbm.train(parameters, dataset, num_boost_round=20)
    asked: list[dict[str, Any]] = [ROW, {**ROW, "region": "unseen"}, dict.fromkeys(ROW)]
    raw = booster.predict(encoding.encode(asked, schema), raw_score=True)
    scores = calibrated(np.asarray(raw), schema.slope, schema.offset)
    golden = json.dumps({"rows": asked, "scores": scores.tolist()}).encode()
    schema = replace(schema, golden="sha256:" + hashlib.sha256(golden).hexdigest())
    return {
        "model.txt": booster.model_to_string().encode(),
        "schema.json": schema.to_json().encode(),
        "golden.json": golden,
    }


class Patient:
    """What makes the model of one Bento sick, and well again; it begins well."""

    def __init__(self, orders: Path) -> None:
        self.orders = orders

    def sicken(self, illness: Illness, *, share: float = 1.0, seconds: float = 0.2) -> None:
        """Have a share of its answers sick from now on; `seconds` is how slow a slow one is."""
        self.orders.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(self.orders) as temporary:
            temporary.write_text(
                json.dumps({"illness": illness, "share": share, "seconds": seconds})
            )

    def cure(self) -> None:
        """Have it answer as it should."""
        self.orders.unlink(missing_ok=True)


def write_patient(home: Path, version: int) -> tuple[str, Patient]:
    """Write the Bento of a model, as packaging would, and return its tag and what sickens it."""
    tag = f"{NAME}_scorer:drill{version}"
    sources, orders = sources_folder(home, tag), home / "orders" / f"{version}.json"
    files = shipped_files(kind_of(DEFAULT))
    contents = {name: (ROOT / path).read_bytes() for name, path in files.items()}
    contents[WORKER] = contents.pop("lane.py")
    contents["lane.py"] = LANE.format(orders=str(orders)).encode()
    for name, content in contents.items():
        path = sources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tag, Patient(orders)
