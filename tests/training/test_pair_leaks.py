"""Pairs of columns: whether they are equal may tell the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.builders.leaks import (
    Columns,
    check,
    made,
)


def test_two_columns_of_one_set_of_values_are_compared() -> None:
    def rooms(columns: Columns, labels: Any, generator: Any) -> None:
        booked = np.array(list("ABCDEF"))[generator.integers(0, 6, len(labels))]
        moved = (labels == 0) & (generator.random(len(labels)) < 0.25)
        columns["booked"] = booked
        columns["given"] = np.where(moved, np.roll(booked, 1), booked)

    found = check(made(rooms))
    (one,) = found.refusals
    assert (one.kind, set(one.columns)) == ("pair", {"given", "booked"})
    assert "unequal" in one.evidence

    def counts(columns: Columns, labels: Any, generator: Any) -> None:
        busy = (labels == 1) | (generator.random(len(labels)) < 0.2)
        for name in ("calls", "promises"):
            columns[name] = pa.array(
                np.where(busy, generator.integers(0, 9, len(labels)), 0), pa.int64()
            )

    assert not [one for one in check(made(counts)).refusals if one.kind == "pair"]

    def unrelated(columns: Columns, labels: Any, generator: Any) -> None:
        for name in ("booked", "given"):
            columns[name] = np.array(list("ABCDEF"))[generator.integers(0, 6, len(labels))]

    assert {one.kind for one in check(made(unrelated)).found} <= {"carries"}


def test_columns_that_share_few_values_or_have_many_are_no_pair() -> None:
    def apart(columns: Columns, labels: Any, generator: Any) -> None:
        booked = np.array(list("ABCDEF"))[generator.integers(0, 6, len(labels))]
        columns["booked"] = booked
        columns["given"] = np.where(labels == 0, np.char.add("x", booked), booked)
        columns["few"] = np.array(list("GHIJKL"))[generator.integers(0, 6, len(labels))]

    named = {one.columns for one in check(made(apart)).found if one.kind == "pair"}
    assert ("booked", "few") not in named
    assert ("few", "booked") not in named
