"""Formats of files by their names: one table for sources, drafts and the members of archives."""

from __future__ import annotations

KINDS = {
    "csv": "csv",
    "tsv": "csv",
    "tab": "csv",
    "txt": "csv",
    "data": "csv",
    "dat": "csv",
    "asc": "csv",
    "test": "csv",
    "train": "csv",
    "parquet": "parquet",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "xlsx": "xlsx",
    "xlsm": "xlsx",
    "arff": "arff",
    "feather": "feather",
}
"""The format of a file, by the ending of its name."""

PACKED = ("gz", "zst", "zip")
"""Endings that say how a file is packed, after the one that says its format."""

ZIP = "zip"
"""The format of an archive whose name says no other: that of its member, by the member's name."""

ENDINGS = f".{', .'.join(KINDS)}, each also .gz or .zst, or one in a .zip"
"""The endings in words, for messages."""


def kind_of(name: str) -> str | None:
    """Return the format that a file's name says, `zip` where only its member says one, or None."""
    parts = name.lower().split(".")[1:]
    packed = None
    while parts and parts[-1] in PACKED:
        packed = parts.pop()
    kind = KINDS.get(parts[-1]) if parts else None
    return ZIP if kind is None and packed == "zip" else kind


def ending_of(name: str) -> str:
    """Return the endings of a file's name that say format and packing, such as `csv.gz`."""
    parts = name.lower().split(".")[1:]
    kept: list[str] = []
    while parts and parts[-1] in PACKED:
        kept.insert(0, parts.pop())
    if parts and parts[-1] in KINDS:
        kept.insert(0, parts.pop())
    return ".".join(kept)
