"""Written forms of numbers: decimal and thousands marks, percent signs, units of money."""

from __future__ import annotations

from collections.abc import Sequence

from include.config.use_case_sources import Column
from include.lake.sql import text_literal
from include.onboarding.column_texts import FITS, ColumnTexts, shown

_UNITS = [
    *["$", "US$", "\u20ac", "\u00a3", "\u00a5", "\u20b9", "\u20a9", "\u20bd", "R$", "Rs", "kr"],
    *["EUR", "USD", "GBP", "CHF", "JPY", "SEK", "NOK", "DKK", "PLN", "CZK", "INR", "CNY", "AUD"],
    *["CAD", "BRL", "z\u0142"],
]
_FORMS = [
    (".", ""),
    (",", ""),
    (".", ","),
    (",", "."),
    (".", " "),
    (",", " "),
    (".", "'"),
    (",", "'"),
]
"""Decimal and thousands mark; of forms that fit equally, the earlier is taken."""
_BELOW = (-99, -999, -9999, -99999, -999999, -9999999)
_ABOVE = (999, 9999, 99999, 999999, 9999999, 365243)
"""Numbers that programs write where there is none; the last are days of a thousand years."""
_LOWEST_CODE = -9
_MOST_CODES = 4  # of a column; more are values
_FEW = 5  # rows, and other numbers, from which such a number says something
# What may stand in a number besides its unit; with typographic apostrophe, minus and blanks. The
# apostrophe is doubled: it stands in an SQL text.
_OF_NUMBERS = "[0-9.,+%''\u2019\u2212 \u00a0\u202f-]"


def number_formats(texts: ColumnTexts) -> list[Column]:
    """Return number columns in written forms that nearly all values have; none of two meanings."""
    digits = texts.count("regexp_matches(t, '[0-9]')")
    values = texts.filled - sum(texts.tokens.values())
    if digits < 0.5 * values or texts.sounds_of_id:
        return []
    percent = texts.count("regexp_matches(t, '%$')")
    unit = _unit(texts)
    if percent and percent < FITS * digits:
        texts.hints.append(
            f"{percent} of {digits} numbers end in %, the others do not: make them alike"
        )
        return []
    marks = _marks(texts)
    candidates = []
    for decimal, thousands in _FORMS:
        # A form needs its marks: digits alone are codes, or numbers as they stand.
        if (decimal == "," and not marks[","]) or (thousands and not marks[thousands]):
            continue
        for kind in ("float64",) if percent else ("int64", "float64"):
            column = Column.model_validate(
                {
                    "type": kind,
                    "decimal": decimal,
                    "thousands": thousands,
                    "percent": bool(percent),
                    "unit": unit,
                }
            )
            if column != Column(type=column.type):
                candidates.append(column)
    fitting = texts.fitting(candidates)
    return [] if _can_be_read_in_two_ways(texts, fitting) else fitting


def note_thousands(texts: ColumnTexts) -> None:
    """Note numbers whose decimals are three digits throughout, as thousands are."""
    points, groups = texts.counts(
        ["contains(t, '.')", "regexp_full_match(t, '[+-]?[1-9][0-9]{0,2}[.][0-9]{3}')"]
    )
    if points and points == groups:
        texts.notes.append(
            "every decimal has three digits: where 1.234 means 1234, write thousands: '.' and "
            "decimal: ','"
        )


def far_tokens(texts: ColumnTexts, column: Column) -> tuple[str, ...]:
    """Return texts such as -999 that stand for no value: negative, far from all other numbers.

    What stands far above all others, such as 999, may be a number: it is noted.
    """
    if texts.sounds_of_id or column != Column(type=column.type):
        return ()
    number = "TRY_CAST(t AS DOUBLE)"
    listed = ", ".join(map(str, (*_BELOW, *_ABOVE)))
    rows = texts.rows(
        f"SELECT t, {number}, n FROM seen WHERE {number} IN ({listed}) ORDER BY n DESC, t LIMIT 9"
    )
    found = []
    for text, value, count in rows:
        low, high, different = texts.rows(
            f"SELECT min({number}), max({number}), count(DISTINCT {number}) FROM seen WHERE "
            f"isfinite({number}) AND {number} NOT IN ({listed})"
        )[0]
        if count < _FEW or different < _FEW:
            continue
        if value < 0 and low - value > max(3 * (high - low), -value / 2):
            found.append(str(text))
        elif value > 0 and value > 3 * high and low >= 0:
            texts.notes.append(
                f"{text} ({count} times) stands far above all others: if it means none, write "
                f"null_values: [{shown(str(text))}]"
            )
    return tuple(found)


def low_codes(texts: ColumnTexts, column: Column) -> tuple[str, ...]:
    """Return whole numbers from -9 to -1 that may be codes, such as -9 for no record; note them.

    They stand below values that are 0 or more, with a number between that nobody has: -1 before 0
    is a step of a scale.
    """
    if texts.sounds_of_id or column not in (Column(type="int64"), Column(type="float64")):
        return ()
    number = "TRY_CAST(t AS DOUBLE)"
    rows = texts.rows(
        f"SELECT t, {number} AS v, n FROM seen WHERE v BETWEEN {_LOWEST_CODE} AND -1 ORDER BY v"
    )
    ((low, different),) = texts.rows(
        f"SELECT min(v), count(DISTINCT v) FROM (SELECT {number} AS v FROM seen) "
        f"WHERE isfinite(v) AND NOT v BETWEEN {_LOWEST_CODE} AND -1"
    )
    if not rows or low is None or low < 0 or different < _FEW or len(rows) > _MOST_CODES:
        return ()
    whole = all(value == int(value) for _, value, _ in rows)
    if not whole or sum(count for _, _, count in rows) < _FEW or low - rows[-1][1] < 2:
        return ()
    shares = ", ".join(f"{text} ({count / texts.filled:.1%})" for text, _, count in rows)
    texts.notes.append(
        f"{shares} below all others, which are {low:g} or more: may mean no value, then write "
        f"null_values: [{', '.join(shown(str(text)) for text, _, _ in rows)}]"
    )
    return tuple(str(text) for text, _, _ in rows)


def _unit(texts: ColumnTexts) -> str | None:
    """Return the most frequent unit: what is left of a text without digits and marks."""
    residue = f"trim(regexp_replace(t, '{_OF_NUMBERS}', '', 'g'))"
    listed = ", ".join(text_literal(unit) for unit in _UNITS)
    rows = texts.rows(
        f"SELECT {residue} AS u, sum(n) FROM seen WHERE u IN ({listed}) GROUP BY u ORDER BY 2 DESC"
    )
    return str(rows[0][0]) if rows else None


def _marks(texts: ColumnTexts) -> dict[str, int]:
    """Return how many texts hold each mark, or its typographic form."""
    conditions = {
        ",": "contains(t, ',')",
        ".": "contains(t, '.')",
        " ": "regexp_matches(t, '[ \u00a0\u202f]')",
        "'": "regexp_matches(t, '[''\u2019]')",
    }
    return dict(zip(conditions, texts.counts([*conditions.values()]), strict=True))


def _can_be_read_in_two_ways(texts: ColumnTexts, fitting: Sequence[Column]) -> bool:
    """Tell whether 1,234 can be 1234 and 1.234 alike, and hint at it."""
    groups = [column for column in fitting if column.thousands == "," and column.decimal == "."]
    decimals = [column for column in fitting if column.thousands == "" and column.decimal == ","]
    if not groups or not decimals or texts.count("contains(t, ',')") == 0:
        return False
    # 0,5 is no group of thousands.
    if texts.misfits(groups[0]) != texts.misfits(decimals[0]) or texts.count(
        "regexp_matches(t, '^[^0-9]*0,')"
    ):
        return False
    rows = texts.rows("SELECT t FROM seen WHERE contains(t, ',') ORDER BY n DESC, t LIMIT 1")
    texts.hints.append(
        f"numbers, but {shown(str(rows[0][0]))} can be read in two ways: write thousands: ',' or "
        "decimal: ',', and type: float64"
    )
    return True
