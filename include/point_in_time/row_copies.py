"""Copies of a row that has no id: alike in all but the outcome, they are one entity.

Their ids differ by the number of the copy alone (`ingestion.row_digests`). What was learnt of one
is known of all, so whoever divides rows by entity, or asks how far chance moves a number, takes
them together: by the id of the first of them, which every row without a copy has itself.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase

LENGTH = 32  # hex digits of a digest: 128 bits, by which no two of a billion rows are alike
_ID = rf"^([0-9a-f]{{{LENGTH}}})-[0-9]+$"


def one_entity(keys: pa.ChunkedArray, use_case: UseCase) -> pa.ChunkedArray:
    """Return a column of the entity's key with one key for all copies of a row.

    A key of the use case's own stays as it is, whatever it looks like.
    """
    if not use_case.key_is_row_digest:
        return keys
    return pc.replace_substring_regex(keys, pattern=_ID, replacement=r"\1-1")
