"""The index against numbers worked out by hand, and the columns that break naive versions of it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from include.config.settings import ROOT
from include.monitoring import psi


def table(**columns: object) -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def test_equals_the_formula_worked_out_by_hand() -> None:
    reference = np.array(["a"] * 80 + ["b"] * 20, dtype=object)
    current = np.array(["a"] * 50 + ["b"] * 50, dtype=object)
    by_hand = (0.5 - 0.8) * math.log(0.5 / 0.8) + (0.5 - 0.2) * math.log(0.5 / 0.2)
    assert psi.categorical(reference, current).psi == pytest.approx(by_hand, abs=1e-12)


def test_equal_samples_have_no_drift_and_a_shift_has() -> None:
    rng = np.random.default_rng(1)
    reference, same, shifted = (
        rng.normal(size=20_000),
        rng.normal(size=20_000),
        rng.normal(0.8, 1, 20_000),
    )
    assert psi.numeric(reference, reference).psi == 0
    quiet, loud = psi.numeric(reference, same).psi, psi.numeric(reference, shifted).psi
    assert quiet is not None
    assert quiet < 0.01
    # deciles of N(0,1) against N(0.8,1): the integral of the two densities' PSI is 0.64; ten bins
    # see most of it
    assert loud is not None
    assert 0.5 < loud < 0.65


def test_small_samples_of_one_population_stay_below_the_users_limit() -> None:
    rng = np.random.default_rng(2)
    values = [psi.numeric(rng.normal(size=120), rng.normal(size=120)).psi for _ in range(200)]
    assert np.mean([value is not None and value > 0.2 for value in values]) < 0.02


@pytest.mark.parametrize("moved", [6.0, 4.0, math.inf, -math.inf, math.nan])
def test_a_constant_column_shows_every_move_away_from_its_value(moved: float) -> None:
    reference = np.full(1000, 5.0)
    assert psi.numeric(reference, reference.copy()).psi == 0
    value = psi.numeric(reference, np.where(np.arange(1000) < 300, moved, 5.0)).psi
    assert value is not None
    assert value > 0.2


@pytest.mark.parametrize("heavy", [0.0, 100.0])
def test_a_value_that_fills_whole_quantiles_keeps_its_own_bin(heavy: float) -> None:
    rng = np.random.default_rng(3)
    spread = rng.uniform(1, 99, 2000)
    reference = np.where(rng.random(2000) < 0.9, heavy, spread)
    current = np.where(rng.random(2000) < 0.4, heavy, spread)
    value = psi.numeric(reference, current).psi
    assert value is not None
    assert value > 0.2


def test_many_categories_in_few_rows_are_no_drift() -> None:
    rng = np.random.default_rng(8)
    draws = [
        psi.categorical(
            *(rng.choice(list("abcdefghijklmnop"), 150).astype(object) for _ in range(2))
        ).psi
        for _ in range(200)
    ]
    assert np.mean([value is not None and value > 0.2 for value in draws]) < 0.02


def test_infinities_and_missing_values_are_counted_and_never_nan() -> None:
    rng = np.random.default_rng(4)
    reference = rng.normal(size=1000)
    current = reference.copy()
    current[:200] = np.inf
    current[200:400] = np.nan
    result = psi.numeric(reference, current)
    assert result.psi is not None
    assert math.isfinite(result.psi)
    assert result.psi > 0.2
    assert result.current_missing == pytest.approx(0.2)
    only_infinite = psi.numeric(np.full(100, np.inf), np.full(100, -np.inf))
    assert only_infinite.psi is not None
    assert math.isfinite(only_infinite.psi)


def test_all_null_columns() -> None:
    nothing, values = np.full(100, np.nan), np.arange(100.0)
    assert psi.numeric(nothing, nothing).psi == 0
    appeared, vanished = psi.numeric(nothing, values), psi.numeric(values, nothing)
    assert appeared.psi is not None
    assert vanished.psi is not None
    assert min(appeared.psi, vanished.psi) > 1
    assert appeared.note == "no value in the reference"
    empty = np.full(100, None, dtype=object)
    assert psi.categorical(empty, empty).psi == 0


def test_an_unseen_category_is_seen_and_rare_ones_share_a_bin() -> None:
    many = np.array([f"bank {i}" for i in range(2000)], dtype=object)
    same = psi.categorical(many, many[::-1].copy())
    assert same.psi == 0
    assert same.bins <= psi.MAX_CATEGORIES + 3
    new = psi.categorical(many, np.array(["<script>"] * 1000 + [None] * 1000, dtype=object))
    assert new.psi is not None
    assert new.psi > 1
    assert new.unseen == pytest.approx(0.5)
    assert new.current_missing == pytest.approx(0.5)


def test_huge_denormal_and_signed_zero_values() -> None:
    odd = np.array([0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308] * 100)
    assert psi.numeric(odd, odd.copy()).psi == 0


def test_not_computable_says_why_and_is_never_a_number() -> None:
    full = table(x=[1.0] * 100, c=["a"] * 100)
    short = table(x=[1.0] * 10, c=["a"] * 10)
    types = {"x": "float64", "c": "string", "gone": "float64"}
    results = psi.stability(full, short, types)
    assert results["x"].psi is None
    assert "fewer than 50 rows" in results["x"].note
    assert results["gone"].psi is None
    assert results["gone"].note == "not in the reference"


def test_types_come_from_the_declaration() -> None:
    numbers = table(n=pa.array([1, None, 3] * 50, pa.int64()), b=[True, False, None] * 50)
    results = psi.stability(numbers, numbers, {"n": "int64", "b": "bool"})
    assert {name: result.psi for name, result in results.items()} == {"n": 0.0, "b": 0.0}
    assert results["n"].reference_missing == pytest.approx(1 / 3)
    assert results["b"].recorded().bins == 3


PROBE = """
import resource, sys
import numpy as np, pyarrow as pa
from include.monitoring import psi
from include.config.settings import ROOT
rows, long = int(sys.argv[1]), int(sys.argv[2])
texts = pa.chunked_array([pa.array(["c" * long, None, *["a", "b"] * (rows // 2 - 1)])])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert psi.of_column(texts, texts, "string").psi == 0
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_one_long_text_does_not_make_every_cell_as_wide() -> None:
    """As numpy's text 20,000 rows of which one has 20,000 characters take 3 GB."""
    command = [sys.executable, "-c", PROBE, "20000", "20000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 60, "MB more than before"


def test_texts_are_counted_alike_in_any_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(6)

    def drawn(rows: int, most: int) -> pa.ChunkedArray:
        values = [None if one == 0 else f"v{one}é" for one in generator.integers(0, most, rows)]
        return pa.chunked_array(
            [pa.array(values[:7], pa.string()), pa.array(values[7:], pa.string())]
        )

    reference, current = drawn(900, 70), drawn(1200, 90)
    whole = psi.of_column(reference, current, "string")
    assert 0 < whole.unseen < 0.5
    monkeypatch.setattr(psi, "PIECE", 11)
    assert psi.of_column(reference, current, "string") == whole
    encoded = [side.cast(pa.large_string()).dictionary_encode() for side in (reference, current)]
    assert psi.of_column(*encoded, "string") == whole


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            "float64",
            [math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.797e308, -1.797e308, None],
        ),
        ("int64", [2**63 - 1, -(2**63), 2**53 + 1, 0, None]),
        ("bool", [True, False, None]),
        ("string", ["", None, "\x00", "😀" * 1000, "a"]),
    ],
)
def test_odd_values_of_every_kind_of_column_are_compared(kind: str, values: list[object]) -> None:
    types = {
        "float64": pa.float64(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "string": pa.string(),
    }
    odd = pa.table({"x": pa.array(values * 100, types[kind])})
    plain = pa.table({"x": pa.array([values[-2]] * 300, types[kind])})
    for reference, current in ((odd, odd), (odd, plain), (plain, odd)):
        found = psi.stability(reference, current, {"x": kind})["x"].psi
        assert found is not None
        assert math.isfinite(found)
        assert (found == 0) is (reference is current)


def test_the_order_of_the_rows_does_not_count() -> None:
    """Nor where the first rows of a column show one value, and the rest many or few others."""
    draw = np.random.default_rng(3)
    for rest in (draw.normal(size=900), draw.integers(1, 4, 900).astype(float)):
        reference = np.concatenate([np.zeros(5_000), rest])
        current = np.concatenate([np.zeros(1_000), rest])
        found = psi.numeric(reference, current)
        assert found.psi is not None
        assert found.psi > 0
        assert found == psi.numeric(draw.permutation(reference), draw.permutation(current))
