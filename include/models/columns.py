"""A column as the numbers that training, the leak gate, drift and the serving node all see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a number or bool column as doubles, null as NaN, infinities as they are.

    An integer beyond 2^53 becomes the nearest double, as `float()` makes it when a request is
    scored: the cast is not a safe one, so that no number of theirs ends a stage.
    """
    import pyarrow as pa

    doubles = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(doubles, dtype=np.float64)
