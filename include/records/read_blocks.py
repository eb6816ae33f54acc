"""Long lists of reads, cut into blocks that the results of many partitions share.

A training without a window reads every partition there is: kept whole with each result, its lists
grow with the square of the partitions. A block holds what was read of one table in one month, under
the digest of its content. The list of the next night shares all blocks but the newest month's with
the list of the night before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

LONG = 40
MONTH = len("2026-01")


def blocks(reads: Sequence[Sequence[str]]) -> dict[str, list[list[str]]]:
    """Return the blocks of a list of triples (table, key, digest), by their digests."""
    grouped: dict[tuple[str, str], list[list[str]]] = {}
    for table, key, digest in reads:
        grouped.setdefault((table, key[:MONTH]), []).append([table, key, digest])
    return {_digest(block): block for block in grouped.values()}


def missing(stored: Sequence[object]) -> list[str]:
    """Return the digests of the blocks that a stored list names; none where it holds the triples
    themselves.
    """
    return [one for one in stored if isinstance(one, str)]


def whole(stored: Sequence[object], known: Mapping[str, list[list[str]]]) -> list[list[str]]:
    """Return the triples of a stored list."""
    found: list[list[str]] = []
    for one in stored:
        found += known[one] if isinstance(one, str) else [list(one)]  # type: ignore[call-overload]
    return found


def _digest(block: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps(block).encode()).hexdigest()
