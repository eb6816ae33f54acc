"""Which column of a table is the outcome, and which of its values counts as 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from include.errors import ConfigError
from include.lake.sql import text_literal
from include.onboarding.header_words import LABEL, plain
from include.onboarding.profile import Profile, Table, name_others, name_some, text

MAX_SPELLINGS = 12  # of two outcomes, such as Yes, yes and YES
_MANY = 20  # rows from which it says something that a column has just two values
LABEL_OR_STATE = re.compile(f"{LABEL.pattern}|status|state$|result")
CERTAIN = ("y", "label", "target", "class", "outcome")
ONES = ("1", "1.0", "1.", "true", "t", "yes", "y")
ZEROS = ("0", "0.0", "0.", "false", "f", "no", "n")


@dataclass(frozen=True, slots=True)
class Positive:
    """The spellings of the label's value that counts as 1, and those of the other."""

    ones: tuple[str, ...]
    others: tuple[str, ...]


def guess_label(
    table: Table, columns: Sequence[Profile], given: Profile | None
) -> tuple[Profile, str]:
    """Return the column of the outcome, and why it was taken.

    Raises:
        ConfigError: none has two values, or several could be it.
    """
    if given is not None:
        return given, "given"
    values = {
        column.header: table.distinct(column.header) for column in columns if column.distinct <= 2
    }
    two = [column for column in columns if len(values.get(column.header, [])) == 2]
    zero_one = [column for column in two if _is_zero_one(values[column.header])]
    two = [column for column in two if column in zero_one or column.type in ("int64", "string")]
    named = [column for column in two if LABEL.search(plain(column.header))]
    # A name that says nothing else ranks above one that may be a fact of whom the row is about.
    candidates = [c for c in named if plain(c.header) in CERTAIN] or named or zero_one
    if not candidates and two and two[-1] is columns[-1] and table.rows >= _MANY:
        others = name_others(column for column in two if column is not two[-1])
        return two[-1], f"guessed: the last column, and it holds two values{others}"
    if not candidates:
        once = [
            column
            for column in columns
            if column.distinct == 1 and LABEL.search(plain(column.header))
        ]
        more = f"; {name_some(once)} hold(s) one value only" if once else ""
        if two:
            more += f"; {name_some(two)} hold(s) two values: name the outcome with --label"
        several = [
            column
            for column in columns
            if column.distinct > 2 and LABEL_OR_STATE.search(plain(column.header))
        ]
        for column in several[:1]:
            shown = table.distinct(column.header, 4)
            more += (
                f"; {column.header!r} has {column.distinct} different values, such as {shown}, and "
                "an outcome has two"
            )
        raise ConfigError(
            f"{table.path}: no column holds just 0 and 1 (or true and false){more}; Evergreen "
            "predicts such an outcome: add one, or write label.sql that makes it"
        )
    if len(candidates) > 1:
        raise ConfigError(
            f"{table.path}: {[column.header for column in candidates]} could each be the label; "
            "name it with --label"
        )
    label = candidates[0]
    others = name_others(column for column in zero_one if column is not label)
    return label, f"guessed: it holds two values{others}"


def guess_positive(table: Table, column: Profile, option: str) -> Positive | None:
    """Return which value of a label counts as 1: of two outcomes the rarer.

    None where it holds 0 and 1. `option` is the one that named the column, for messages.

    Raises:
        ConfigError: it holds one value, or more than two that are no spellings of two.
    """
    values = table.distinct(column.header, MAX_SPELLINGS + 1)
    if len(values) == 2 and _is_zero_one(values):
        return None
    # Spellings differ in case, blanks and a final full stop: ">50K", ">50k."
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(re.sub(r"\s+", "", value.lower()).rstrip("."), []).append(value)
    where = f"{option} {column.header!r}".strip()
    if len(groups) == 1:
        raise ConfigError(
            f"{table.path}: {where} holds one value only ({values[0]!r}); a label has two, name "
            "another with --label"
        )
    if len(groups) > 2:
        raise ConfigError(
            f"{table.path}: {where} holds more than two values, such as {values[:3]}; a label has "
            "two: add such a column, or write the YAML by hand with label.positive or label.sql"
        )

    def count(spellings: Sequence[str]) -> int:
        listed = ", ".join(text_literal(value) for value in spellings)
        return int(
            table.scalar(f"SELECT count(*) FROM given WHERE {text(column.header)} IN ({listed})")
        )

    frequent, rare = sorted(groups.values(), key=count, reverse=True)
    return Positive(tuple(rare), tuple(frequent))


def _is_zero_one(values: Sequence[str]) -> bool:
    """Tell whether two values are a yes and a no, as the contract reads them."""
    return {value.lower() in ONES for value in values} == {True, False} and all(
        value.lower() in (*ONES, *ZEROS) for value in values
    )
