"""The partitions that a training reads are there, in today's definition, or named."""

from __future__ import annotations

import pytest

from include.errors import MissingPartition
from tests.builders.judging import KEY, Bench


def test_missing_partitions_are_named_with_the_command_that_fills_them(bench: Bench) -> None:
    bench.forget_result("materialize_features", "2026-01-20")
    with pytest.raises(
        MissingPartition, match=r"2026-01-20.*evergreen load-history visits --from 2026-01-20"
    ):
        bench.run("train_model", KEY)


def test_a_new_feature_set_names_the_partitions_that_lack_it(bench: Bench) -> None:
    bench.configure(more=", income2: float64")
    with pytest.raises(
        MissingPartition,
        match=r"36 partitions \(2026-01-01 to 2026-02-05\) do not hold feature set",
    ):
        bench.run("train_model", KEY)
