"""Random draws by counter: a value is a hash of what it belongs to, not of earlier draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

# Odd 64-bit numbers with well mixed bits: the golden ratio of SplitMix64, and three that keep seed,
# first and second apart (of wyhash). All arithmetic is modulo 2**64, which is meant.
_GAMMA = 0x9E3779B97F4A7C15
_STEP = 0xD1B54A32D192ED03
_FIRST = 0xA0761D6478BD642F
_SECOND = 0xE7037ED1A0B428DB
_MASK = (1 << 64) - 1
_SIXTEEN = np.uint64(0xFFFF)


def mix(keys: Keys) -> Keys:
    """Scramble 64-bit keys (the finaliser of SplitMix64, Steele et al. 2014)."""
    out = keys ^ (keys >> np.uint64(30))
    out *= np.uint64(0xBF58476D1CE4E5B9)
    out ^= out >> np.uint64(27)
    out *= np.uint64(0x94D049BB133111EB)
    out ^= out >> np.uint64(31)
    return out


def keys(seed: int, salt: int, first: NDArray[Any], second: NDArray[Any] | int = 0) -> Keys:
    """Return one key for each pair of whole numbers (broadcast).

    A salt separates the draws of one purpose from those of another for the same pair.
    """
    origin = np.uint64((seed * _STEP + (salt + 1) * _GAMMA) & _MASK)
    mixed = np.asarray(first).astype(np.uint64) * np.uint64(_FIRST) + np.asarray(second).astype(
        np.uint64
    ) * np.uint64(_SECOND)
    return mix(mixed + origin)


def uniform(keys: Keys, draw: int) -> Floats:
    """Return draw number `draw` of each key, uniform in [0, 1)."""
    # The upper 53 bits are what a double can hold.
    out: Floats = (_bits(keys, draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out


def normal(keys: Keys, draw: int) -> Floats:
    """Return draw number `draw` of each key, nearly normal with mean 0 and variance 1.

    It is a sum of four uniform numbers: a logarithm or cosine may differ between machines in its
    last bit, a sum of whole numbers does not.
    """
    bits = _bits(keys, draw)
    total = bits & _SIXTEEN
    for shift in (16, 32, 48):
        total += (bits >> np.uint64(shift)) & _SIXTEEN
    # Four uniforms of 16 bits have mean 2 - 2**-15 and variance 4/12, so the factor is sqrt(3).
    out: Floats = (total.astype(np.float64) * 2.0**-16 - (2.0 - 2.0**-15)) * 3.0**0.5
    return out


def _bits(keys: Keys, draw: int) -> Keys:
    return mix(keys + np.uint64(((draw + 1) * _GAMMA) & _MASK))
