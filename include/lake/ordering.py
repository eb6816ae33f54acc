"""Rows that stand in an order already, or nearly: to look costs a hundredth of sorting them.

Sources often write rows in the order of their times and numbers, and what was sorted once is asked
for in the same order again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_BLOCKS = 1_000  # where there are more, the rows are in another order and not in blocks


def is_ordered(columns: Iterable[pa.ChunkedArray], *, strictly: bool = False) -> bool:
    """Tell whether rows ascend by some columns, the first of which decides first.

    `strictly` says that no two rows may be equal in all of them. Where a column that is looked at
    holds nulls or NaN, whose place is not the same for everybody, it is False.
    """
    tied: Any = True  # whether a row equals the next one in all columns before
    for column in columns:
        if column.null_count:
            return False
        before, after = column.slice(0, max(len(column) - 1, 0)), column.slice(1)
        if pa.types.is_dictionary(column.type):
            before, after = (part.cast(column.type.value_type) for part in (before, after))
        equal = pc.equal(before, after)
        if pc.any(pc.and_not(tied, pc.or_(equal, pc.less(before, after)))).as_py():
            return False
        tied = pc.and_(tied, equal)
        if not pc.any(tied).as_py():
            return True
    return not strictly


def find_blocks(columns: Sequence[pa.Array], numbers: pa.Array) -> list[tuple[int, int]] | None:
    """Return the blocks of rows, as (first place, length), in the order of what they hold.

    A block are rows side by side that are equal in some columns, dictionaries, and are numbered one
    after the other. Blocks are ordered by these columns and their first number. None: they are so
    already, or there are none.
    """
    values = numbers.to_numpy()
    begins = values[1:] != values[:-1] + 1
    for column in columns:
        codes = column.indices.to_numpy()
        begins |= codes[1:] != codes[:-1]
    starts = np.concatenate([[0], np.flatnonzero(begins) + 1])
    if not 1 < len(starts) <= MOST_BLOCKS:
        return None
    firsts = [column.take(pa.array(starts)).to_pylist() for column in (*columns, numbers)]
    keys = list(zip(*firsts, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if order == list(range(len(keys))):
        return None
    lengths = np.diff(starts, append=len(values))
    return [(int(starts[at]), int(lengths[at])) for at in order]
