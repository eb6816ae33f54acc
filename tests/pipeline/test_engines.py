"""What an engine refuses reaches a person in our words: exit 2 or 3 with use case, stage and
partition, never 70.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from include.config.use_case_file import parse
from include.errors import Busy, ConfigError, SourceError
from include.models import lightgbm_fitting as fitting
from include.pipeline import execution, flow
from include.pipeline.engines import guarded, translated
from include.pipeline.flow import ENTRY
from include.pipeline.stage import Stage
from tests.onboarding.test_check import SHOP

WORK = SimpleNamespace(use_case=SimpleNamespace(name="shop"), key="2026-01-01")
LATER = SimpleNamespace(use_case=SimpleNamespace(name="shop"), key="2026-01-03")


def stage(call: Callable[[], Any]) -> Any:
    """Return a guarded stage of which everything does `call`."""

    def compute_range(contexts: Any) -> Iterator[Any]:
        yield contexts[0], "first"
        yield contexts[-1], call()

    made = Stage("validate_data", (), (), lambda context: [], lambda context: call(), compute_range)
    return guarded(made)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: duckdb.sql("SELECT CAST('C001' AS BIGINT)").fetchall(), ConfigError),
        (lambda: duckdb.sql("SELECT nothing FROM range(2)").fetchall(), ConfigError),
        (lambda: duckdb.sql("SELECT * FROM nowhere").fetchall(), ConfigError),
        (
            lambda: duckdb.sql("SELECT * FROM read_parquet('/nowhere/x.parquet')").fetchall(),
            SourceError,
        ),
        (lambda: pa.array([2**60 + 1]).cast(pa.float64()), ConfigError),
        (lambda: pa.array(["x"]).cast(pa.int64()), ConfigError),
        (lambda: pa.table({"a": [1]}).join(pa.table({"a": ["x"]}), "a"), ConfigError),
        (lambda: pd.Timestamp("9999-12-31") + pd.Timedelta(days=10**5), ConfigError),
        (lambda: DeltaTable("/nowhere/at/all"), SourceError),
    ],
)
def test_an_engines_error_is_told_with_stage_and_partition(
    call: Callable[[], Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="shop: validate_data of 2026-01-01: ") as found:
        stage(call).compute(WORK)
    assert found.value.exit_code in (2, 3)  # type: ignore[attr-defined]
    assert "\n" not in str(found.value)


def test_a_table_s_storage_that_fails_is_told_without_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "the-account-s-own-key")

    def put() -> None:
        raise DeltaError("PUT https://a.blob/c/x?sv=1&sig=abc%3D refused for the-account-s-own-key")

    with pytest.raises(SourceError, match=r"PUT https://a\.blob/c/x refused for \*\*\*") as found:
        stage(put).compute(WORK)
    assert found.value.__cause__ is None


def test_a_range_yields_what_was_good_and_then_tells_the_error() -> None:
    made = stage(lambda: duckdb.sql("SELECT CAST('C001' AS BIGINT)").fetchall()).compute_range(
        [WORK, LATER]
    )
    assert next(made) == (WORK, "first")
    with pytest.raises(
        ConfigError, match=r"shop: validate_data of 2026-01-01 to 2026-01-03: .*C001"
    ):
        next(made)


def test_our_own_errors_and_defects_go_through_as_they_are() -> None:
    def busy() -> None:
        raise Busy("somebody else")

    with pytest.raises(Busy, match=r"^somebody else$"), translated("here"):
        busy()
    with pytest.raises(ZeroDivisionError), translated("here"):
        1 / 0  # noqa: B018
    assert list(stage(lambda: "second").compute_range([WORK])) == [
        (WORK, "first"),
        (WORK, "second"),
    ]
    assert stage(busy).still_valid is None


@pytest.mark.parametrize("name", flow.STAGES)
def test_every_stage_stands_behind_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(ENTRY[name])
    monkeypatch.setattr(
        module, "STAGE", replace(module.STAGE, compute=lambda _: duckdb.sql("SELECT nothing"))
    )
    with pytest.raises(ConfigError, match=f"shop: {name} of 2026-01-01: "):
        execution.load_stage(name).compute(WORK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("{num_leaves: 1}", "num_leaves must be > 1"),
        ('{metric: "None"}', "no such metric"),
        ("{learning_rte: 0.1}", "did you mean learning_rate"),
        ("{boosting: rf, bagging_freq: 0, feature_fraction: 1.0}", "beside the other parameters"),
    ],
)
def test_what_reaches_training_all_the_same_names_its_parameters(params: str, said: str) -> None:
    text = SHOP.replace("delay: 1d}", f"delay: 1d}}\ntraining: {{params: {params}}}")
    rows = np.random.default_rng(1).normal(size=200)
    frame = pa.table(
        {"customer_id": np.arange(200), "label": (rows > 0).astype(float), "total": rows}
    )
    frame = frame.append_column("event_timestamp", pa.array([0] * 200, pa.timestamp("us", "UTC")))
    parts = np.repeat(np.array([0, 1, 2], dtype=np.int8), [120, 40, 40])
    with pytest.raises(ConfigError, match=f"training.params.*{said}"):
        fitting.fit(frame, parts, parse(text), "set")
