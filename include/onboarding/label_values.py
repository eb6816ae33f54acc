"""Which column of a table is the outcome, and which of its values counts as 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from shlex import quote

from include.errors import ConfigError
from include.onboarding.answers import Undecided
from include.onboarding.header_words import BEFORE, LABEL, STATE, plain, sounds_late
from include.onboarding.profile import Profile, Table, text
from include.onboarding.yaml_text import name_others, name_some
from include.texts import plain_text

MAX_SPELLINGS = 12  # of two outcomes, such as Yes, yes and YES
_LAST = "the last column, and "
_MANY = 20  # rows from which it says something that a column has just two values
MAX_CLASSES = 40  # different values from which a column is a number or a name, not an outcome
CERTAIN = ("y", "label", "target", "class", "outcome")
ONES = ("1", "1.0", "1.", "true", "t", "yes", "y")
ZEROS = ("0", "0.0", "0.", "false", "f", "no", "n")
_YES = {"ja", "oui", "si", "s\u00ed", "sim", "tak", "da", "evet", "igen", "kyll\u00e4", "ano"}
_YES |= {"1", "+1"}
_NO = {"nein", "non", "no", "nee", "nej", "n\u00e3o", "nao", "nie", "ne", "nu", "hay\u0131r", "nem"}
_NO |= {"ei", "nei", "-1"}
_AFFIRMED = (("yes", "positive", "pos", "present"), ("no", "negative", "neg", "absent"))


@dataclass(frozen=True, slots=True)
class Positive:
    """The spellings of the label's values that count as 1, some of the others, and why these."""

    ones: tuple[str, ...]
    others: tuple[str, ...]
    given: bool = False
    why: str = "the rarer outcome"


@dataclass(frozen=True, slots=True)
class LabelGuess:
    """The column of the outcome, why it was taken, and which others could be it by their values.

    It is `sure` where its name says that it is an outcome: nobody has to be asked.
    """

    column: Profile
    why: str
    rivals: tuple[Profile, ...] = ()
    sure: bool = True


def guess_label(
    table: Table,
    columns: Sequence[Profile],
    given: Profile | None,
    positive: tuple[str, ...] | None = None,
) -> LabelGuess:
    """Return the column of the outcome: by its name, else by its values and its place.

    Published tables have their outcome last, more often than not. `positive` are values of it that
    a person said count as 1.

    Raises:
        Undecided: several could be it, or it has more than two values.
        ConfigError: none could.
    """
    if given is not None:
        return LabelGuess(given, "given")
    values = {
        column.header: table.distinct(column.header) for column in columns if column.distinct <= 2
    }
    two = [column for column in columns if len(values.get(column.header, [])) == 2]
    zero_one = [column for column in two if _is_zero_one(values[column.header])]
    two = [column for column in two if column in zero_one or column.type in ("int64", "string")]
    named = [column for column in two if _is_outcome(column)]
    # A name that says nothing else ranks above one that may be a fact of whom the row is about.
    candidates = [c for c in named if plain(c.header) in CERTAIN] or named
    if not candidates:
        named_by_classes = _ask_for_classes(table, columns, positive)
        if named_by_classes is not None:
            return LabelGuess(named_by_classes, "guessed: its name sounds of an outcome")
        candidates = [column for column in two if _is_state(plain(column.header))]
    others = [column for column in zero_one if column not in candidates]
    if len(candidates) == 1:
        return LabelGuess(candidates[0], f"guessed: it holds two values{name_others(others)}")
    if not candidates and table.rows >= _MANY and (last := _by_place(two, zero_one, columns)):
        several = [column for column in columns if _has_classes(column)]
        rivals = tuple(column for column in (*two, *several) if column is not last)
        others = [column for column in two if column is not last]
        places = {columns[0].header: "the first column, and ", columns[-1].header: _LAST}
        why = f"{places.get(last.header, '')}it holds two values"
        return LabelGuess(last, f"guessed: {why}{name_others(others)}", rivals, sure=False)
    could = candidates or zero_one or (two if table.rows >= _MANY else [])
    none = "no column holds just 0 and 1 (or true and false)"
    message, choices = f"{none}{_what_there_is(table, columns)}", tuple(c.header for c in could)
    if len(could) > 1:
        message = f"{[*choices]} could each be the label, with two values; name it with --label"
        message = message if zero_one or candidates else f"{none}; {message}"
    elif could:
        message += f"; {choices[0]!r} has two values: if it is the outcome, name it with --label"
    elif columns and _has_classes(columns[-1]):
        choices = (columns[-1].header,)
    if choices:
        raise Undecided(
            f"{table.path}: {message}",
            field="label",
            question="Which column is the outcome?",
            choices=choices,
            option="--label",
        )
    raise ConfigError(
        f"{table.path}: {message}; Evergreen predicts such an outcome: add one, or write label.sql "
        "that makes it"
    )


def _has_classes(column: Profile) -> bool:
    return 2 < column.distinct <= MAX_CLASSES and column.type in ("int64", "string")


def _is_outcome(column: Profile) -> bool:
    name = plain(column.header)
    return bool(LABEL.search(name)) and not BEFORE.search(name)


def _is_state(name: str) -> bool:
    """Tell whether a name sounds of what became of something, such as `loan_status`."""
    return bool(STATE.search(name)) and sounds_late(name)


def _by_place(
    two: Sequence[Profile], zero_one: Sequence[Profile], columns: Sequence[Profile]
) -> Profile | None:
    """Return the only column of 0 and 1, else the last or the first column if it has two values."""
    if len(zero_one) == 1 and columns[-1] not in zero_one:
        return zero_one[0]
    return next((column for column in (columns[-1], columns[0]) if column in two), None)


def _ask_for_classes(
    table: Table, columns: Sequence[Profile], positive: tuple[str, ...] | None
) -> Profile | None:
    """Ask which values count as 1, where the column of the outcome has more than two.

    Return it where a person said so already.
    """
    for column in columns:
        name = plain(column.header)
        named_last = _is_outcome(column) and column is columns[-1]
        if _has_classes(column) and (name in CERTAIN or _is_state(name) or named_last):
            if positive is not None:
                return column
            guess_positive(table, column, "")
    return None


def _what_there_is(table: Table, columns: Sequence[Profile]) -> str:
    """Return what of a table without an outcome comes near to one, for a message."""
    once = [column for column in columns if column.distinct == 1 and _is_outcome(column)]
    more = f"; {name_some(once)} hold(s) one value only" if once else ""
    # The last one first: where an outcome stands, if its name does not say it.
    for column in sorted(
        columns,
        key=lambda each: (not _is_outcome(each), each is not columns[-1]),
    )[:1]:
        if _has_classes(column) and (_is_outcome(column) or column is columns[-1]):
            shown = table.distinct(column.header, 4)
            more += (
                f"; {column.header!r} has {column.distinct} different values, such as {shown}: if "
                f"it is the outcome, say which of them count as 1, such as --label "
                f"{quote(column.header)} --positive {quote(shown[-1])}"
            )
    return more


def guess_positive(
    table: Table, column: Profile, option: str, given: tuple[str, ...] | None = None
) -> Positive | None:
    """Return which values of a label count as 1: those that are given, else of two the rarer.

    None where it holds 0 and 1. `option` is the one that named the column, for messages.

    Raises:
        Undecided: it holds more than two values that are no spellings of two.
        ConfigError: it holds one value, too many, or not those that are given.
    """
    where = f"{option} {column.header!r}".strip()
    counts = _counts(table, column)
    values = list(counts)
    if given is not None:
        return _given_positive(table, where, values, given)
    if len(values) == 2 and _is_zero_one(values):
        return None
    # Spellings differ in case, blanks and a final full stop: ">50K", ">50k."
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(re.sub(r"\s+", "", value.lower()).rstrip("."), []).append(value)
    if len(groups) == 1:
        raise ConfigError(
            f"{table.path}: {where} holds one value only ({values[0]!r}); a label has two, name "
            "another with --label"
        )
    if len(groups) > MAX_CLASSES:
        raise ConfigError(
            f"{table.path}: {where} holds more than {MAX_CLASSES} different values, such as "
            f"{values[:3]}, and an outcome has two: add a column that says it, such as 1 above a "
            "limit, or write label.sql by hand"
        )
    if len(groups) > 2:
        listed = ", ".join(f"{value!r} ({counts[value]})" for value in values[:8])
        rarest = values[-1]
        raise Undecided(
            f"{table.path}: {where} holds more than two values: {listed}"
            f"{', ...' if len(values) > 8 else ''}. Say which of them count as 1, with commas "
            f"between, such as --label {quote(column.header)} --positive {quote(rarest)}; all "
            "others count as 0. Where another column is the outcome, name it with --label",
            field="positive",
            question=f"Which values of {column.header!r} count as 1 (with commas between)?",
            choices=tuple(values[:12]),
            option="--positive",
        )
    for (yes, ones), (no, zeros) in permutations(groups.items()):
        if _affirms(yes, no):
            return Positive(tuple(ones), tuple(zeros), why="the yes of the two")
    frequent, rare = sorted(
        groups.values(), key=lambda spellings: sum(counts[each] for each in spellings), reverse=True
    )
    return Positive(tuple(rare), tuple(frequent))


def _affirms(yes: str, no: str) -> bool:
    """Tell whether of two words the first says that it is so, and the second that it is not."""
    return (yes in _YES and no in _NO) or (yes in _AFFIRMED[0] and no in _AFFIRMED[1])


def shown_one(table: Table, label: Profile) -> str:
    """Return how the file writes the 1 of a label that the contract reads as yes and no."""
    spelled = table.spelled(label.header, ONES) if label.type == "bool" else None
    return spelled or "1"


def _counts(table: Table, column: Profile) -> dict[str, int]:
    """Return how many rows have each value, the most frequent first; not of all of very many."""
    rows = table.rows_of(
        f"SELECT {text(column.header)} AS v, count(*) FROM given WHERE v IS NOT NULL GROUP BY v "
        f"ORDER BY count(*) DESC, v LIMIT {MAX_SPELLINGS * MAX_CLASSES}"
    )
    return {str(value): int(count) for value, count in rows}


def _given_positive(
    table: Table, where: str, values: Sequence[str], given: tuple[str, ...]
) -> Positive:
    """Return the values that a person said, if the column has them and others besides."""
    # A value may hold a comma, at which an option is divided.
    said = plain_text(",".join(given))
    whole = [value for value in values if re.sub(r"\s*,\s*", ",", value) == said]
    ones = whole or [plain_text(one) for one in given]
    if unknown := [one for one in ones if one not in values]:
        raise ConfigError(
            f"{table.path}: --positive {', '.join(unknown)}: {where} has no such value; it has "
            f"{list(values[:12])}"
        )
    others = [value for value in values if value not in ones]
    if not ones or not others:
        raise ConfigError(
            f"{table.path}: --positive: of the values of {where} some count as 1 and some as 0; "
            f"it has {list(values[:12])}"
        )
    return Positive(tuple(ones), tuple(others[:MAX_SPELLINGS]), given=True)


def _is_zero_one(values: Sequence[str]) -> bool:
    """Tell whether two values are a yes and a no, as the contract reads them."""
    return {value.lower() in ONES for value in values} == {True, False} and all(
        value.lower() in (*ONES, *ZEROS) for value in values
    )
