"""One small model with every type of feature, fitted once, for the tests of models/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from include.config.use_case_file import parse
from include.models.kinds import DEFAULT, Fitted, kind_of
from include.training import splits
from tests.builders.bundles import write_bundle
from tests.builders.judging import KNOBS, YAML, simulate

USE_CASE = parse(YAML.format(**{**KNOBS, "more": ", member: bool"}))


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def fitted(frame: pa.Table) -> Fitted:
    moments = np.asarray(frame["event_timestamp"].cast(pa.int64()))
    how = splits.boundaries(moments, USE_CASE.training.split)
    parts = splits.assign(
        frame["customer_id"].to_pylist(), moments, USE_CASE.training.split, 7, how
    )
    return kind_of(DEFAULT).fit(frame, parts, USE_CASE, "abc")


@pytest.fixture
def bundle(fitted: Fitted, tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", fitted.files)
