"""Features that carry the model: what is lost without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from include.models import matrix
from include.training import carrier_leaks
from tests.builders.leaks import (
    case,
    check,
    made,
    put,
)


def test_a_feature_that_carries_the_model_is_refused_among_many_and_asked_of_among_few() -> None:
    def duration(labels: Any, generator: Any) -> Any:
        return 2.2 * labels + generator.normal(size=len(labels))

    rows = made(put("duration", duration))
    found = check(rows)
    (one,) = found.refusals
    assert (one.kind, one.columns) == ("carries", ("duration",))
    assert found.carriers[0] == "duration"
    assert found.gains["duration"] > carrier_leaks.REFUSAL
    few = check(rows.select(["key", "label", "x0", "x1", "duration"]))
    assert not few.refusals
    assert ("duration",) in [one.columns for one in few.questions if one.kind == "carries"]


def test_columns_of_noise_make_no_honest_feature_suspect() -> None:
    generator = np.random.default_rng(7)
    amount = generator.normal(size=1200)
    label = (generator.random(1200) < 1 / (1 + np.exp(-1.4 * amount))).astype(np.float64)
    noise = {f"n{number}": generator.integers(0, 100, 1200) for number in range(25)}
    found = check(
        pa.table({"key": np.arange(1200) % 150, "label": label, "amount": amount, **noise})
    )
    assert found.gains["amount"] > carrier_leaks.REFUSAL
    assert not found.refusals
    assert [one.columns for one in found.questions] == [("amount",)]


def test_few_rows_of_a_class_or_a_single_feature_are_not_tried() -> None:
    rows = made()
    labels = matrix.labels_of(rows)
    own = dict.fromkeys(case(rows).trained_features, 0.6)
    tried = carrier_leaks.find_carriers(rows, case(rows), labels, own, ["x0"])
    assert tried == carrier_leaks.NO_CARRIERS
    few, names = rows.slice(0, 150), list(own)
    tried = carrier_leaks.find_carriers(few, case(rows), labels[:150], own, names)
    assert tried == carrier_leaks.NO_CARRIERS


def test_rows_are_spread_from_the_first_to_the_last() -> None:
    assert carrier_leaks.evenly_spread(10, 4).to_pylist() == [0, 3, 6, 9]
