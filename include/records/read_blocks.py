"""Cut long lists of reads into blocks that the results of many partitions share.

A training without a window reads every partition there is: kept whole with each result, its lists
grow with the square of the partitions. A block holds what was read of one table in one month, under
the digest of its content. The list of the next night shares all blocks but the newest month's with
the list of the night before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

LONG = 40  # triples; a shorter list stands in the result itself
MONTH = len("2026-01")  # characters of a partition key that name its month


def split_into_blocks(reads: Sequence[Sequence[str]]) -> dict[str, list[list[str]]]:
    """Return the blocks of a list of triples (table, key, digest), by their digests."""
    grouped: dict[tuple[str, str], list[list[str]]] = {}
    for table, key, digest in reads:
        grouped.setdefault((table, key[:MONTH]), []).append([table, key, digest])
    return {_digest(block): block for block in grouped.values()}


def block_digests(stored: Sequence[object]) -> list[str]:
    """Return the digests of the blocks that a stored list names; a short list names none."""
    return [item for item in stored if isinstance(item, str)]


def join_blocks(stored: Sequence[object], blocks: Mapping[str, list[list[str]]]) -> list[list[str]]:
    """Return the triples of a stored list: its own, or those of the blocks that it names."""
    triples: list[list[str]] = []
    for item in stored:
        triples += blocks[item] if isinstance(item, str) else [list(item)]  # type: ignore[call-overload]
    return triples


def _digest(block: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps(block).encode()).hexdigest()
