"""Foreign names as YAML and as comments in it: quoted where they have to be, on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from include.config import names as names_of_ours

if TYPE_CHECKING:
    from include.onboarding.profile import Profile

RESERVED = {*names_of_ours.ROWS, *names_of_ours.FRAMES}


def name_of(words: str) -> str:
    """Return words as a name: `Loans (2024)` as loans_2024."""
    name = re.sub(r"[^a-z0-9]+", "_", names_of_ours.latin(words).lower()).strip("_")
    name = name if name[:1].isalpha() else f"use_case_{name}".strip("_")
    return name[:48].rstrip("_")


def column_names(
    headers: Sequence[str], own: Collection[str] = (), key: str | None = None
) -> dict[str, str]:
    """Return a column name for each header: letters, digits and _, unique without regard to case.

    None is one of Evergreen's own, but for the headers in `own`. `key` is the header of the entity,
    which also stands in tables of scores.
    """
    names: dict[str, str] = {}
    for header in headers:
        base = (
            re.sub(r"[^A-Za-z0-9]+", "_", names_of_ours.latin(header)).strip("_")[:55] or "column"
        )
        base = base if not base[0].isdigit() else f"c_{base}"
        ours = RESERVED | set(names_of_ours.SCORES) if header == key else RESERVED
        base = f"{base}_value" if base.lower() in ours and header not in own else base
        name, number = base, 2
        while name.lower() in {other.lower() for other in names.values()}:
            name, number = f"{base}_{number}", number + 1
        names[header] = name
    return names


def quoted(text: str) -> str:
    """Return a text in quotes as YAML reads it back, in plain letters.

    JSON writes a letter beyond U+FFFF, such as a smiley, as two; YAML reads them as two.
    """
    return "".join(
        json.dumps(letter)[1:-1]
        if letter <= "\uffff" and letter != "\x7f"
        else f"\\U{ord(letter):08x}"
        for letter in text
    ).join('""')


def plain_name(name: str) -> str:
    """Return a name as YAML reads it back: in quotes where it would be a number or the like."""
    import yaml

    return name if yaml.safe_load(name) == name else quoted(name)


def note(foreign: str) -> str:
    """Return a foreign name as one line of plain characters, safe in a comment."""
    return json.dumps(foreign[:60])


def name_others(columns: Iterable[Profile]) -> str:
    """Return the end of a note: which other columns there are, as JSON, safe in a comment."""
    names = [json.dumps(column.header[:60]) for column in columns][:4]
    return f"; others: {', '.join(names)}" if names else ""


def name_some(columns: Iterable[Profile]) -> str:
    """Return the headers of up to six columns, for a message."""
    return ", ".join(repr(column.header) for column in list(columns)[:6])
