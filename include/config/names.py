"""What use cases, their parts and columns may be called, and the names that are Evergreen's own.

A name is safe in paths, SQL, YAML and HTML alike. Names are compared without case, since DuckDB and
Delta do. Columns of ours that exist only within a query begin with `__`; those that are stored, and
so were named once for all, stand in the lists below.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from typing import Annotated

from pydantic import Field

# 48 characters, since names are joined to DAG ids and paths; 63 is PostgreSQL's limit of a column.
NAME = r"^[a-z][a-z0-9_]{0,47}$"
COLUMN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"

Name = Annotated[str, Field(pattern=NAME)]
ColumnName = Annotated[str, Field(pattern=COLUMN)]

OWN = "__"
"""Begins every column of ours that is not stored."""
TIMES = ("event_timestamp", "created_timestamp")
"""Columns of curated rows: a source column of such a name must be that very time."""
ROWS = ("partition", "rule", "source_file", "source_row", "arrived_at", "malformed")
"""Columns that raw and quarantined rows have besides a source's own."""
FRAMES = ("partition", *TIMES, "label_timestamp", "label", "split")
"""Columns that labels, features and training sets have besides the entity's key and features."""
SCORES = ("score", "decision", "version", "model_digest")
"""Columns that a table of scores has besides the entity's key."""

# A letter, and what it becomes: those that Unicode does not take apart into a plain one and a mark,
# and German umlauts, which become two letters.
_LETTERS = {
    ord(pair[0]): pair[1:]
    for pair in (
        *("øo", "ØO", "åa", "ÅA", "łl", "ŁL", "đd", "ĐD", "ðd", "þth", "ßss"),
        *("äae", "öoe", "üue", "ÄAe", "ÖOe", "ÜUe", "æae", "ÆAe", "œoe", "ŒOe"),
    )
}


def latin(words: str) -> str:
    """Return words with letters of Latin scripts as plain ones: ö as oe, é as e."""
    plain = unicodedata.normalize("NFC", words).translate(_LETTERS)
    # NFKD takes a letter and its marks apart: e and an accent.
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", plain)
        if not unicodedata.combining(letter)
    )


def is_ours(name: str, ours: Collection[str]) -> bool:
    """Tell whether a name is one of `ours` (lower case), or begins as those of queries do."""
    return name.lower() in ours or name.startswith(OWN)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in nothing but case."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(name.lower(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
