"""Looks for secrets: in files as they are, and in databases value by value (a page may cut a
text in two).
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from include.config.settings import Settings

HEADER = b"SQLite format 3\0"
# A signed JSON web token: header, claims, signature.
TOKEN = re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}")


def secrets_of(settings: Settings) -> dict[str, str]:
    """Return every secret that an installation keeps in files, by what it is called."""
    found: dict[str, str] = {}
    for path in sorted((settings.home / "secrets").iterdir()):
        text = path.read_text().strip()
        if path.suffix == ".json":
            found |= {f"{path.name} {who}": word for who, word in json.loads(text).items()}
        elif text.startswith("-----BEGIN"):
            found[path.name] = text.splitlines()[1]  # of a key in PEM what only it has
        elif path.suffix != ".lock":
            found[path.name] = text
    return found


class Scanner:
    """Knows some words by name, and the ways in which they may be written."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._written = {name: _ways(word) for name, word in words.items()}

    def names(self, content: bytes) -> set[str]:
        """Return the names of the words that the content holds."""
        return {name for name, ways in self._written.items() if any(way in content for way in ways)}

    def files(self, paths: Iterable[Path]) -> dict[str, set[str]]:
        """Return which words stand in which files."""
        found = {
            str(path): self.names(path.read_bytes())
            for path in paths
            if path.is_file() and not path.is_symlink()
        }
        return {path: names for path, names in found.items() if names}

    def database(self, path: Path) -> dict[str, set[str]]:
        """Return which words stand in which columns of an SQLite database."""
        columns: dict[str, list[bytes]] = {}
        for column, value in values(path):
            columns.setdefault(column, []).append(value)
        found = {
            f"{path.name}: {column}": self.names(b"\0".join(parts))
            for column, parts in columns.items()
        }
        return {column: names for column, names in found.items() if names}


def databases(folder: Path) -> list[Path]:
    """Return the SQLite databases below a folder; Feast's registry, too, is called `.db`, and is
    none.
    """
    return [path for path in folder.rglob("*.db") if path.read_bytes()[: len(HEADER)] == HEADER]


def values(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every text and every blob of an SQLite database, with its table and column."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as con:
        con.text_factory = bytes
        tables = [
            name.decode()
            for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            rows = con.execute(f'SELECT * FROM "{table}"')
            columns = [name for name, *_ in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    if isinstance(value, bytes):
                        yield f"{table}.{column}", value


def _ways(word: str) -> set[bytes]:
    plain = word.encode()
    return {
        plain,
        quote(word, safe="").encode(),
        base64.b64encode(plain).rstrip(b"=")[:-1],
        plain.hex().encode(),
    }
