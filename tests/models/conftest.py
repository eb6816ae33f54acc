"""One small model with every type of feature, fitted once, for the tests of models/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from include.models.kinds import DEFAULT, Fitted, kind_of
from include.training import splits
from tests.builders.bundles import write_bundle
from tests.builders.small_model import USE_CASE, new_frame


@pytest.fixture(scope="session")
def frame() -> pa.Table:
    return new_frame()


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
