"""Columns that tell the outcome by themselves, are empty, or are ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.errors import ConfigError
from include.training import leaks
from tests.builders.judging import visits_frame, visits_use_case
from tests.builders.leaks import (
    Columns,
    check,
    closed,
    cut,
    lost,
    made,
    put,
    recovered,
    status,
)


@pytest.mark.parametrize(
    ("make", "kind", "evidence"),
    [
        (closed, "presence", "where it has a value, all"),
        (lost, "presence", "where it is empty, all"),
        (recovered, "presence", "where it is neither empty nor 0, all"),
        (cut, "pure", "where it lies in "),
        (status, "pure", "where it is 'settled', all"),
        (
            lambda labels, generator: labels + generator.normal(size=len(labels)) / 20,
            "alone",
            r"gates.max_feature_auc (0.98)",
        ),
    ],
    ids=["present", "missing", "not zero", "a range", "a category", "alone"],
)
def test_a_feature_that_tells_the_outcome_is_named_with_evidence_and_remedy(
    make: Callable[[Any, Any], Any], kind: str, evidence: str
) -> None:
    found = check(made(put("told", make)))
    (one,) = found.refusals
    assert (one.kind, one.columns) == (kind, ("told",))
    assert evidence in one.evidence
    assert "training: {exclude: [told]}" in one.remedy
    with pytest.raises(ConfigError, match="the outcome leaks through told"):
        found.refuse()


@pytest.mark.parametrize(
    "make",
    [closed, lost, recovered, cut, status],
    ids=["present", "missing", "not zero", "range", "text"],
)
def test_less_than_a_tenth_of_a_class_or_a_row_of_the_other_is_no_leak(
    make: Callable[[Any, Any], Any],
) -> None:
    def rarely(labels: Any, generator: Any) -> Any:
        marked = np.where(generator.random(len(labels)) < 0.25, labels, 0.0)
        return make(marked, generator)

    def not_always(labels: Any, generator: Any) -> Any:
        return make(np.where(generator.random(len(labels)) < 0.03, 1 - labels, labels), generator)

    for honest in (rarely, not_always):
        assert not check(made(put("told", honest))).refusals


def test_a_feature_that_is_null_everywhere_is_named() -> None:
    empty = visits_frame(
        lambda columns: columns.update(region=pa.nulls(len(columns["label"]), pa.string()))
    )
    with pytest.raises(ConfigError, match=r"'region' of visits is null on all 1800 training rows"):
        leaks.check(empty, visits_use_case()).refuse()


@pytest.mark.parametrize(
    "leak",
    [
        lambda label, noise: label * 10 + noise,
        lambda label, noise: -label,
        lambda label, noise: [None if value else 1.0 for value in label],
        lambda label, noise: [
            float(50 * value + number // 2 % 2 * 100) for number, value in enumerate(label)
        ],
    ],
    ids=["high", "reversed", "missing", "up and down again"],
)
def test_a_feature_that_knows_the_outcome_is_named(leak: Callable[[Any, Any], Any]) -> None:
    noise = np.random.default_rng(1).normal(size=1800)
    leaking = visits_frame(
        lambda columns: columns.update(
            income=pa.array(list(leak(columns["label"], noise)), pa.float64())
        )
    )
    with pytest.raises(ConfigError, match=r"leaks through income \((0\.99|1\.00)"):
        leaks.check(leaking, visits_use_case()).refuse()
    text = visits_frame(
        lambda columns: columns.update(region=[f"outcome {value}" for value in columns["label"]])
    )
    with pytest.raises(ConfigError, match="leaks through region"):
        leaks.check(text, visits_use_case()).refuse()


@pytest.mark.parametrize(
    ("column", "make"),
    [
        ("visits", lambda keys: keys),
        ("visits", lambda keys: keys * 2 - 7),
        ("region", lambda keys: [f"client {key}" for key in keys]),
        ("region", lambda keys: [f"note {number}" for number in range(len(keys))]),
    ],
    ids=["the key", "a count of entities", "a name an entity", "free text"],
)
def test_ids_are_no_features(column: str, make: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigError, match=f"{column!r} of visits is an id"):
        leaks.check(
            visits_frame(lambda columns: columns.update({column: make(columns["customer_id"])})),
            visits_use_case(),
        ).refuse()


def test_dense_numbers_are_ids_and_spread_ones_are_not() -> None:
    generator = np.random.default_rng(2)
    spread = generator.choice(10**9, 3000, replace=False)

    def numbers(columns: Columns, labels: Any, generator: Any) -> None:
        columns["account"] = pa.array(generator.permutation(3000) + 70_000, pa.int64())
        columns["income"] = pa.array(spread, pa.int64())

    found = check(made(numbers))
    assert [(one.kind, one.columns) for one in found.refusals] == [("id", ("account",))]


def test_a_rising_feature_whose_end_is_pure_is_honest() -> None:
    """Beside a range of one outcome the other is rare as well: no step, and so no leak."""

    def rising(columns: Columns, labels: Any, generator: Any) -> None:
        columns["score"] = np.sort(generator.normal(size=len(labels)))
        order = np.argsort(labels + generator.normal(size=len(labels)) * 0.4, kind="stable")
        columns["score"][order] = columns["score"].copy()

    assert not [one for one in check(made(rising)).found if one.kind == "pure"]
